package main

// The stores that this program can use. Importing a driver registers it.
import (
	_ "github.com/holdfast-io/holdfast/gcs"
	_ "github.com/holdfast-io/holdfast/local"
	_ "github.com/holdfast-io/holdfast/s3"
)
