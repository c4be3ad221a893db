package main

import (
	"encoding/json"
	"errors"
	"os"
	"time"
)

// document is everything that a run has measured, as the JSON file has it.
// Times are in seconds and sizes in bytes.
type document struct {
	Time       time.Time     `json:"time"`     // of the end
	Complete   bool          `json:"complete"` // no step failed, and nothing was interrupted
	Machine    machine       `json:"machine"`
	Rounds     int           `json:"rounds"`
	Proxy      bool          `json:"proxy"` // stood between the contenders and the server
	Link       *linkCheck    `json:"link"`  // what the proxy made of the loopback interface; null if nothing
	Contenders []participant `json:"contenders"`
	LeftOut    []leftOut     `json:"left_out"`
	States     []stateInfo   `json:"states"`
	Results    []result      `json:"results"`
}

type participant struct {
	Name    string `json:"name"`
	Version string `json:"version"` // "" for what comes with this tree or with the system
}

type leftOut struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

type stateInfo struct {
	Name    string `json:"name"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	Changed int64  `json:"changed"` // bytes that the change makes new
}

// documentFile is where the document goes. It is opened before anything is
// measured, so that hours later there is no doubt about the place, and takes
// its name in the end, so that an earlier file stays until then.
type documentFile struct {
	path string // "" for none
	temp *os.File
}

func createDocument(path string) (documentFile, error) {
	if path == "" {
		return documentFile{}, nil
	}
	temp, err := os.Create(path + ".new")
	return documentFile{path, temp}, err
}

// write writes what there is, if there is anything.
func (f documentFile) write(b *bench) error {
	if f.path == "" {
		return nil
	}
	d := b.document
	if len(b.results.all) == 0 {
		return errors.Join(f.temp.Close(), os.Remove(f.temp.Name()))
	}
	d.Time, d.Rounds, d.Proxy, d.Results = time.Now().UTC(), b.rounds, !b.noProxy, b.results.all
	e := json.NewEncoder(f.temp)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return errors.Join(e.Encode(d), f.temp.Close(), os.Rename(f.temp.Name(), f.path))
}
