# The policies, byte for byte as in docs/deploy/aws.md (with the names of this bucket and
# path), where each is tested with MinIO. deploycheck compares them.
locals {
  owner = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"],
          "Resource": "arn:aws:s3:::${var.bucket}/${var.prefix}/*"
        },
        {
          "Effect": "Allow",
          "Action": "s3:ListBucket",
          "Resource": "arn:aws:s3:::${var.bucket}"
        }
      ]
    }
  JSON

  reader = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": "s3:GetObject",
          "Resource": "arn:aws:s3:::${var.bucket}/${var.prefix}/*"
        },
        {
          "Effect": "Allow",
          "Action": "s3:ListBucket",
          "Resource": "arn:aws:s3:::${var.bucket}"
        }
      ]
    }
  JSON

  collector = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": ["s3:GetObject", "s3:DeleteObject"],
          "Resource": "arn:aws:s3:::${var.bucket}/${var.prefix}/*"
        },
        {
          "Effect": "Allow",
          "Action": "s3:ListBucket",
          "Resource": "arn:aws:s3:::${var.bucket}"
        }
      ]
    }
  JSON

  bucket_policy = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "OnlyTLS",
          "Effect": "Deny",
          "Principal": "*",
          "Action": "s3:*",
          "Resource": [
            "arn:aws:s3:::${var.bucket}",
            "arn:aws:s3:::${var.bucket}/*"
          ],
          "Condition": {"Bool": {"aws:SecureTransport": "false"}}
        },
        {
          "Sid": "ManifestsAreNeverReplaced",
          "Effect": "Deny",
          "Principal": "*",
          "Action": "s3:PutObject",
          "Resource": "arn:aws:s3:::${var.bucket}/${var.prefix}/*/manifests/*",
          "Condition": {"Null": {"s3:if-none-match": "true"}}
        }
      ]
    }
  JSON
}

# For who saves checkpoints, and cleans up after itself.
resource "aws_iam_policy" "owner" {
  name_prefix = "holdfast-owner-"
  policy      = local.owner
}

# For who restores and inspects checkpoints.
resource "aws_iam_policy" "reader" {
  name_prefix = "holdfast-reader-"
  policy      = local.reader
}

# For who deletes what no checkpoint needs any more.
resource "aws_iam_policy" "collector" {
  name_prefix = "holdfast-collector-"
  policy      = local.collector
}
