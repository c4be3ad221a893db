# Roles for a service account on EKS. Take one of the two: Pod Identity, unless the cluster
# does not have its agent.
variable "cluster" {
  type        = string
  default     = ""
  description = "Name of the EKS cluster, for Pod Identity; empty for none."
}

variable "oidc_provider" {
  type        = string
  default     = ""
  description = "The cluster's OIDC provider without https://, for IRSA; empty for none."
}

variable "account" {
  type        = string
  default     = ""
  description = "Number of the AWS account that the OIDC provider is in, for IRSA."
}

variable "namespace" {
  type        = string
  default     = "default"
  description = "Kubernetes namespace of the service account."
}

variable "service_account" {
  type        = string
  default     = "train"
  description = "Name of the Kubernetes service account."
}

locals {
  # Pod Identity adds these tags to each session, unless the association switches them off.
  # Without the condition, every pod of the account that is associated could have the role.
  pod_identity_trust = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Principal": {"Service": "pods.eks.amazonaws.com"},
          "Action": ["sts:AssumeRole", "sts:TagSession"],
          "Condition": {
            "StringEquals": {
              "aws:RequestTag/eks-cluster-name": "${var.cluster}",
              "aws:RequestTag/kubernetes-namespace": "${var.namespace}",
              "aws:RequestTag/kubernetes-service-account": "${var.service_account}"
            }
          }
        }
      ]
    }
  JSON

  irsa_trust = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Principal": {"Federated": "arn:aws:iam::${var.account}:oidc-provider/${var.oidc_provider}"},
          "Action": "sts:AssumeRoleWithWebIdentity",
          "Condition": {
            "StringEquals": {
              "${var.oidc_provider}:aud": "sts.amazonaws.com",
              "${var.oidc_provider}:sub": "system:serviceaccount:${var.namespace}:${var.service_account}"
            }
          }
        }
      ]
    }
  JSON
}

resource "aws_iam_role" "pod_identity" {
  count              = var.cluster == "" ? 0 : 1
  name_prefix        = "holdfast-${var.service_account}-"
  assume_role_policy = local.pod_identity_trust
}

resource "aws_iam_role_policy_attachment" "pod_identity" {
  count      = var.cluster == "" ? 0 : 1
  role       = aws_iam_role.pod_identity[0].name
  policy_arn = aws_iam_policy.owner.arn
}

resource "aws_eks_pod_identity_association" "owner" {
  count           = var.cluster == "" ? 0 : 1
  cluster_name    = var.cluster
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.pod_identity[0].arn
}

resource "aws_iam_role" "irsa" {
  count              = var.oidc_provider == "" ? 0 : 1
  name_prefix        = "holdfast-${var.service_account}-"
  assume_role_policy = local.irsa_trust
}

resource "aws_iam_role_policy_attachment" "irsa" {
  count      = var.oidc_provider == "" ? 0 : 1
  role       = aws_iam_role.irsa[0].name
  policy_arn = aws_iam_policy.owner.arn
}

output "irsa_role" {
  value       = one(aws_iam_role.irsa[*].arn)
  description = "For the service account's annotation eks.amazonaws.com/role-arn."
}
