# A bucket for checkpoints, policies for those who use it, and roles for pods on EKS.
# docs/deploy/aws.md says what each is for.
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "bucket" {
  type        = string
  description = "Name of the bucket."
}

variable "prefix" {
  type        = string
  description = "Path of the job in the bucket, without slashes at its ends: jobs/orders."
}

resource "aws_s3_bucket" "checkpoints" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "checkpoints" {
  bucket                  = aws_s3_bucket.checkpoints.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "checkpoints" {
  bucket = aws_s3_bucket.checkpoints.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# What retention deletes stays for a week, as a noncurrent version, and is paid for.
resource "aws_s3_bucket_versioning" "checkpoints" {
  bucket = aws_s3_bucket.checkpoints.id
  versioning_configuration {
    status = "Enabled"
  }
}

# There is no rule that expires current versions, and there must be none: the newest
# checkpoint may need segments that are old.
resource "aws_s3_bucket_lifecycle_configuration" "checkpoints" {
  depends_on = [aws_s3_bucket_versioning.checkpoints]
  bucket     = aws_s3_bucket.checkpoints.id
  rule {
    id     = "expire-deleted-checkpoints"
    status = "Enabled"
    filter {
      prefix = "${var.prefix}/"
    }
    noncurrent_version_expiration {
      noncurrent_days = 7
    }
    expiration {
      expired_object_delete_marker = true
    }
  }
}

resource "aws_s3_bucket_policy" "checkpoints" {
  depends_on = [aws_s3_bucket_public_access_block.checkpoints]
  bucket     = aws_s3_bucket.checkpoints.id
  policy     = local.bucket_policy
}
