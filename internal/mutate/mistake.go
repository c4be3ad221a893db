package main

import (
	"fmt"
	"slices"
	"strings"
)

// A mistake is one change of one file.
type mistake struct {
	name   string
	file   string // from the module's root, with slashes
	old    string // stands in the file exactly once
	new    string
	breaks string // an invariant of docs/protocol.md, or what is asked of a store (A1 to A4)
	tests  []finder
}

// A finder is tests of one package, one of which is to go red.
type finder struct {
	pkg   string   // directory, from the module's root
	names []string // of top-level tests
}

func by(pkg string, names ...string) []finder { return []finder{{pkg, names}} }

// mistakes returns all of them.
func mistakes() []mistake {
	return slices.Concat(inTheProtocol, inAmendments, inForks, inOwners, inSaves, inCollections, inCleanUps, inRemovals, inRetention, inLists, inRepairs, inStates, inHoles, inRestores, inTransfers, inBackend, onDisk, inS3, inGCS, overHTTP, inHosts, inRunner, inStandbys, inEnds, inEngines, inParts, inRuns, inWatched, slips, onceSurvived)
}

// apply returns the file with the mistake made.
func (m *mistake) apply(source string) (string, error) {
	if n := strings.Count(source, m.old); n != 1 {
		return "", fmt.Errorf("the text to be changed stands there %d times; want once", n)
	}
	return strings.Replace(source, m.old, m.new, 1), nil
}
