// Package evidence measures the chunkers that docs/decisions/0011 weighs, in a
// module of its own, so that nobody who uses Holdfast gets them:
//
//	go -C docs/decisions/0011-evidence test -bench .
package evidence
