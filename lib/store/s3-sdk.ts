// What the S3 client takes of AWS's SDK: a module of its own since it is large, and loaded by the first request to S3 alone. The build
// makes one file of it and of all it needs (native/bundle.mjs). Control plane.

export {
  DeleteObjectCommand,
  GetBucketVersioningCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  ListObjectVersionsCommand,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
