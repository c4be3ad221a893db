# A bucket for checkpoints, and who may use it. docs/deploy/gcp.md says what each is for.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.21"
    }
  }
}

variable "project" {
  type        = string
  description = "Id of the project."
}

variable "project_number" {
  type        = string
  description = "Number of the project that the GKE cluster is in."
}

variable "bucket" {
  type        = string
  description = "Name of the bucket."
}

variable "location" {
  type        = string
  description = "Region, dual-region or multi-region: near the job."
}

variable "prefix" {
  type        = string
  description = "Path of the jobs in the bucket, without slashes at its ends: jobs."
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

# Cloud Storage speaks TLS, and the driver speaks nothing else to it. To have plain HTTP
# refused, set the organization's constraint for that: it is not a bucket's.
resource "google_storage_bucket" "checkpoints" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # What retention deletes stays for a week, as a noncurrent version. Soft delete would keep
  # it, too, and be paid for.
  versioning {
    enabled = true
  }
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  # There is no rule that deletes live objects, and there must be none: the newest checkpoint
  # may need segments that are old.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 7
      with_state                 = "ARCHIVED"
      matches_prefix             = ["${var.prefix}/"]
    }
  }
}

locals {
  # A Kubernetes service account of a cluster with workload identity, itself: without a key,
  # an annotation or a service account of Google's.
  gke_principal = "principal://iam.googleapis.com/projects/${var.project_number}/locations/global/workloadIdentityPools/${var.project}.svc.id.goog/subject/ns/${var.namespace}/sa/${var.service_account}"
}

resource "google_storage_bucket_iam_member" "owner" {
  bucket = google_storage_bucket.checkpoints.name
  role   = "roles/storage.objectUser"
  member = local.gke_principal
}

# For who deletes what no checkpoint needs any more. It is granted to nobody here.
resource "google_project_iam_custom_role" "collector" {
  project     = var.project
  role_id     = "holdfastCollector"
  title       = "Collector of Holdfast's checkpoints"
  permissions = ["storage.objects.get", "storage.objects.list", "storage.objects.delete"]
}
