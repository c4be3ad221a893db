package main

// The stores that -checkpoint can name. A driver registers its URL scheme when its package is
// imported; nothing else here knows which there are.
import (
	_ "github.com/holdfast-io/holdfast/local"
	_ "github.com/holdfast-io/holdfast/s3"
)
