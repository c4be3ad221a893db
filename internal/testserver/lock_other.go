//go:build !unix

package testserver

import "errors"

func lock(string) (func() error, error) { return nil, errors.ErrUnsupported }
