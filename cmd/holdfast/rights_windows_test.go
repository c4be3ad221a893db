package main

import "errors"

func becomeUser(string) error { return errors.ErrUnsupported }
