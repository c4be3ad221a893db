// Runnable evidence for docs/decisions/0011, see doc.go.
module github.com/holdfast-io/holdfast/docs/decisions/0011-evidence

go 1.26.0

require (
	github.com/PlakarKorp/go-cdc-chunkers v1.1.0
	github.com/jotfs/fastcdc-go v0.2.0
	github.com/zeebo/blake3 v0.2.4
)

require github.com/klauspost/cpuid/v2 v2.0.12 // indirect
