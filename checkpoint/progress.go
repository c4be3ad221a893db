package checkpoint

import (
	"sync"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Progress says how far a save or a restore has come.
type Progress struct {
	Files, AllFiles int   // regular files of the state: those that are done, and all
	Bytes, AllBytes int64 // of data in these files; a stream's size is not known before its end
	Moved           int64 // bytes that were sent to the store, or fetched from it
}

// A meter adds up progress, and reports it.
type meter struct {
	mu     sync.Mutex
	now    Progress
	report func(Progress) // may be nil
}

// add reports what was done. Calls of report come one at a time.
func (m *meter) add(done Progress) {
	if m.report == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Files += done.Files
	m.now.AllFiles += done.AllFiles
	m.now.Bytes += done.Bytes
	m.now.AllBytes += done.AllBytes
	m.now.Moved += done.Moved
	m.report(m.now)
}

// total returns a Progress with the number and size of all regular files.
func total(nodes []*node) (p Progress) {
	for _, n := range nodes {
		p.count(&n.Entry)
	}
	return p
}

// count counts an entry as one to do, if it is a regular file.
func (p *Progress) count(e *format.Entry) {
	if e.Mode.IsRegular() {
		p.AllFiles++
		p.AllBytes += e.Size
	}
}
