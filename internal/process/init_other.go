//go:build !linux && !darwin

package process

import "errors"

// IsInit is never so: there are no such namespaces here.
func IsInit() bool { return false }

// Init is never called.
func Init() (int, error) { return 0, errors.ErrUnsupported }
