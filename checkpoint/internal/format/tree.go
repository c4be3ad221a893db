package format

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"path"
	"strings"
	"time"
)

// An Entry is one file, directory or symbolic link of a checkpoint's state.
type Entry struct {
	Path    string      // slash-separated and relative; "." is the root directory
	Mode    fs.FileMode // type and permissions, with setuid, setgid and sticky
	ModTime time.Time   // zero if it is not known
	Target  string      // of a symbolic link
	Owner   *Owner      // of all entries of a tree, or of none

	// The rest is a regular file's.

	Size int64 // in bytes

	// ChangeTime and Inode are what the file system said of the file when it
	// was read, so that a later save on the same host need not open it. Without
	// ChangeTime, which is zero if it is not known, Inode must be zero too.
	ChangeTime time.Time
	Inode      uint64

	// Chunks are the file's data, in order. When they are many, Table is set
	// instead: the chunks of the file's table, which is the list of its
	// chunks stored as data, so that an unchanged table is referred to and not
	// written again. See [AppendTable]. A file that is not empty has one of
	// the two. With a table, Uses says what the chunks in it take of each segment,
	// so that a table need not be read to know that.
	Chunks []Chunk
	Table  []Chunk
	Uses   []Use
}

// An Owner says whom a file belongs to, by numbers: a user and a group.
type Owner struct{ UID, GID uint32 }

// String returns "user:group", or "" for no owner.
func (o *Owner) String() string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", o.UID, o.GID)
}

// noID is the number that stands for no user or group: see chown(2).
const noID = math.MaxUint32

// ModeMask is what a tree keeps of a mode.
const ModeMask = fs.ModeDir | fs.ModeSymlink | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky | fs.ModePerm

// ownedBit in an encoded mode says that the owner follows. It is a bit that no
// fs.FileMode has, and one of the low ones, so that a mode stays as short.
const ownedBit = 1 << 9

// MaxTree bounds an encoded tree, in bytes: the list of about ten million
// files.
const MaxTree = 1 << 30

// MaxPath bounds the path of an entry and the target of a link, in bytes. Linux
// takes 4 KiB in one call, Windows about 32,000 characters.
const MaxPath = 32 << 10

// MaxDepth bounds the number of names in a path, because the time to handle an entry grows
// with it. Linux takes as many in one call.
const MaxDepth = 2 << 10

// MaxEntryChunks is how many chunks a writer lists in an entry itself before
// it makes a table. It is the writer's choice: a reader takes any number.
const MaxEntryChunks = 4

// MaxTreeChunks is how many chunks of a list of leaves a writer lists in the content
// itself before it makes a table.
const MaxTreeChunks = 16

// A TreeEncoder encodes a tree, entry by entry. It refuses what DecodeTree
// would refuse, so that nothing is stored that cannot be read. The zero value
// is an empty tree. It must not be used by two goroutines at once.
//
// A tree is stored in leaves: see [Leaf].
//
// A tree is the encodings of its entries, one after the other, in depth-first order: a
// directory comes before what is in it, and that comes before the directory's next
// sibling. Siblings are in byte order of their names.
//
//	entry   = length, body                  length of the body
//	body    = path, mode, [owner], mtime, [target | file]
//	path    = length, bytes                 target likewise
//	mode    = io/fs.FileMode, as far as ModeMask goes; and ownedBit if owner follows
//	owner   = user, group
//	mtime   = seconds since 1970, nanoseconds
//	file    = size*2 + tabled, seen, [uses], chunk...    if tabled, uses, and the chunks of the table
//	uses    = as in a list of leaves: see [EncodeLeaves]
//	seen    = 0 | nanoseconds + 1, seconds, inode   change time and inode
//	chunk   = as in a table: see [AppendTable]
//
// Numbers are unsigned varints, seconds a signed one.
type TreeEncoder struct {
	tree []byte // the leaf so far
	size int    // of the leaves before
	body []byte // of one entry, kept for its memory
	in   order
}

// Add appends e, of which it keeps nothing but the path. Mode bits that a tree
// does not hold are dropped, but for those of the type, which are refused. After
// an error the tree is as it was before.
func (t *TreeEncoder) Add(e *Entry) error {
	stored := *e
	stored.Mode &= ModeMask | fs.ModeType
	if err := t.in.check(&stored); err != nil {
		return err
	}
	t.body = appendBody(t.body[:0], &stored)
	if t.size+len(t.tree)+binary.MaxVarintLen64+len(t.body) > MaxTree {
		return fmt.Errorf("the list of files and directories takes more than %d bytes at %q", MaxTree, e.Path)
	}
	t.tree = binary.AppendUvarint(t.tree, uint64(len(t.body)))
	t.tree = append(t.tree, t.body...)
	t.in.pass(&stored)
	return nil
}

// Bytes returns the tree, or the leaf, so far. It is the encoder's until no more is added.
func (t *TreeEncoder) Bytes() []byte { return t.tree }

// EndLeaf ends a leaf: what is added afterwards belongs to the next one.
func (t *TreeEncoder) EndLeaf() { t.size, t.tree = t.size+len(t.tree), t.tree[:0] }

// Skip takes the place of the entries of a leaf that is stored already.
func (t *TreeEncoder) Skip(first string) { t.in = order{last: first, unknown: true} }

func appendBody(b []byte, e *Entry) []byte {
	b = appendString(b, e.Path)
	if o := e.Owner; o != nil {
		b = binary.AppendUvarint(b, uint64(e.Mode)|ownedBit)
		b = binary.AppendUvarint(b, uint64(o.UID))
		b = binary.AppendUvarint(b, uint64(o.GID))
	} else {
		b = binary.AppendUvarint(b, uint64(e.Mode))
	}
	b = binary.AppendVarint(b, e.ModTime.Unix())
	b = binary.AppendUvarint(b, uint64(e.ModTime.Nanosecond()))
	switch e.Mode.Type() {
	case fs.ModeSymlink:
		b = appendString(b, e.Target)
	case 0:
		b = appendFile(b, e)
	}
	return b
}

func appendFile(b []byte, e *Entry) []byte {
	head, chunks := uint64(e.Size)<<1, e.Chunks
	if len(e.Table) > 0 {
		head, chunks = head|1, e.Table
	}
	b = binary.AppendUvarint(b, head)
	if e.ChangeTime.IsZero() {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(e.ChangeTime.Nanosecond())+1)
		b = binary.AppendVarint(b, e.ChangeTime.Unix())
		b = binary.AppendUvarint(b, e.Inode)
	}
	if len(e.Table) > 0 {
		b = appendUses(b, e.Uses)
	}
	var at place
	for i := range chunks {
		b = at.append(b, &chunks[i])
	}
	return b
}

// DecodeTree decodes what a TreeEncoder made. It checks that paths are clean, in order,
// and below directories of the same tree, and that a file's chunks add up to its size; if
// not, its error wraps ErrCorrupt. It does not check the chunks in a file's table, which
// [DecodeTable] does, nor that chunks are inside their segments, which [Places] does.
func DecodeTree(data []byte) ([]Entry, error) {
	var entries []Entry
	t := TreeDecoder{parts: parts{rest: data}}
	for e, err := range t.decode {
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if err := t.End(); err != nil {
		return nil, err
	}
	return entries, nil
}

// A TreeDecoder is [DecodeTree] for a tree that comes in parts: leaf by leaf, see
// [TreeDecoder.Begin]. It also checks that each leaf has just what the list of leaves declares.
// It takes memory for one part and one entry.
type TreeDecoder struct {
	parts
	n      int
	in     order
	claims *claims // nil if nothing is claimed
	leaf   *Leaf   // nil if it is a whole tree
}

// Add yields the entries that end in part, which comes next. What it finds wrong it
// yields last. part may be used again afterwards.
func (t *TreeDecoder) Add(part []byte) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		t.add(part)
		t.decode(yield)
	}
}

// End returns an error that wraps ErrCorrupt if the tree ends within an entry.
func (t *TreeDecoder) End() error {
	if len(t.rest) > 0 {
		return corruptf("the tree ends within entry %d", t.n+1)
	}
	return t.checkLeaf()
}

// decode yields the entries that are there as a whole.
func (t *TreeDecoder) decode(yield func(Entry, error) bool) {
	for len(t.rest) > 0 {
		d := decoder{rest: t.rest}
		length := d.uvarint()
		if d.failed && len(t.rest) >= binary.MaxVarintLen64 {
			yield(Entry{}, corruptf("entry %d is malformed", t.n+1))
			return
		}
		if most := t.claims.maxEntry(); length > most {
			yield(Entry{}, corruptf("entry %d has %d bytes; at most %d can be", t.n+1, length, most))
			return
		}
		body := d.take(length)
		if d.failed {
			return
		}
		t.rest = d.rest
		t.n++
		e, err := decodeEntry(body)
		if err == nil {
			err = t.in.check(&e)
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("%w: %w", ErrCorrupt, err))
			return
		}
		if err := cmp.Or(t.checkFirst(&e), t.claims.take(&e)); err != nil {
			yield(Entry{}, err)
			return
		}
		t.in.pass(&e)
		if !yield(e, nil) {
			return
		}
	}
}

func decodeEntry(body []byte) (Entry, error) {
	d := decoder{rest: body}
	e := Entry{Path: string(d.bytes())}
	mode := d.uvarint()
	e.Mode = fs.FileMode(mode &^ ownedBit)
	if mode&ownedBit != 0 {
		e.Owner = d.owner()
	}
	seconds, nanos := d.varint(), d.uvarint()
	e.ModTime = time.Unix(seconds, int64(nanos)).UTC()
	switch e.Mode.Type() {
	case fs.ModeSymlink:
		e.Target = string(d.bytes())
	case 0:
		d.file(&e)
	}
	if d.failed || len(d.rest) > 0 || mode > math.MaxUint32 || nanos >= 1e9 {
		return Entry{}, fmt.Errorf("entry %q is malformed", e.Path)
	}
	return e, nil
}

func (d *decoder) owner() *Owner {
	uid, gid := d.uvarint(), d.uvarint()
	if uid >= noID || gid >= noID {
		d.fail()
	}
	return &Owner{uint32(uid), uint32(gid)}
}

// file reads what appendFile writes, to the end of d.
func (d *decoder) file(e *Entry) {
	head := d.uvarint()
	e.Size = int64(head >> 1)
	d.seen(e)
	tabled := head&1 != 0
	if tabled {
		e.Uses = d.uses()
	}
	var chunks []Chunk
	var at place
	for len(d.rest) > 0 {
		chunks = append(chunks, d.chunk(&at))
	}
	if tabled && len(chunks) == 0 {
		d.fail()
		return
	}
	if tabled {
		e.Table = chunks
	} else {
		e.Chunks = chunks
	}
}

func (d *decoder) seen(e *Entry) {
	nanos := d.uvarint()
	if nanos == 0 {
		return
	}
	seconds := d.varint()
	e.ChangeTime = time.Unix(seconds, int64(nanos-1)).UTC()
	e.Inode = d.uvarint()
	if nanos > 1e9 || e.ChangeTime.IsZero() { // which has the short form
		d.fail()
	}
}

// order checks entries one after another.
type order struct {
	last    string // path of the entry before, or ""
	dir     bool   // which is a directory
	owned   bool   // and has an owner
	unknown bool   // some entries before the next one are not known
}

// check reports what is wrong with e as the next entry.
func (o *order) check(e *Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if o.last != "" && ComparePaths(o.last, e.Path) >= 0 {
		return fmt.Errorf("entry %q after %q", e.Path, o.last)
	}
	if o.unknown {
		return nil
	}
	if !o.open(path.Dir(e.Path)) {
		return fmt.Errorf("entry %q in no directory", e.Path)
	}
	if o.last != "" && o.owned != (e.Owner != nil) {
		return fmt.Errorf("of the entries %q and %q only one has an owner", o.last, e.Path)
	}
	return nil
}

// pass takes e, which has been checked, as the last one.
func (o *order) pass(e *Entry) {
	*o = order{last: e.Path, dir: e.Mode.IsDir(), owned: e.Owner != nil}
}

// open reports whether the entries so far hold directory dir and do not lead
// past what is in it: it is the last entry, or that one is below it.
func (o *order) open(dir string) bool {
	if dir == "." {
		return true
	}
	below, ok := strings.CutPrefix(o.last, dir)
	return ok && (below == "" && o.dir || strings.HasPrefix(below, "/"))
}

// ComparePaths orders paths as fs.WalkDir visits them: ".", "a", "a/b", "a-b".
func ComparePaths(a, b string) int {
	if a == "." || b == "." {
		return cmp.Compare(len(strings.TrimPrefix(a, ".")), len(strings.TrimPrefix(b, ".")))
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return cmp.Compare(rank(a[i]), rank(b[i]))
		}
	}
	return cmp.Compare(len(a), len(b))
}

// rank orders a slash before all that a name can hold.
func rank(c byte) byte {
	if c == '/' {
		return 0
	}
	return c
}

// check reports what is wrong with e alone.
func (e *Entry) check() error {
	if err := checkPath(e.Path); err != nil {
		return fmt.Errorf("entry %w", err)
	}
	switch {
	case len(e.Target) > MaxPath:
		return fmt.Errorf("link %q has a target of %d bytes, more than %d", e.Path, len(e.Target), MaxPath)
	case e.Path == "." && !e.Mode.IsDir():
		return fmt.Errorf("entry with path %q", e.Path)
	case e.Mode&^ModeMask != 0 || e.Mode.Type() == fs.ModeDir|fs.ModeSymlink:
		return fmt.Errorf("entry %q has mode %v", e.Path, e.Mode)
	case e.Owner != nil && (e.Owner.UID == noID || e.Owner.GID == noID):
		return fmt.Errorf("entry %q belongs to %v", e.Path, e.Owner)
	case e.Mode.Type() == fs.ModeSymlink && (e.Target == "" || strings.ContainsRune(e.Target, 0)):
		return fmt.Errorf("link %q has target %q", e.Path, e.Target)
	case e.Mode.Type() != fs.ModeSymlink && e.Target != "":
		return fmt.Errorf("entry %q has target %q and is no link", e.Path, e.Target)
	case e.Mode.IsRegular():
		return e.checkFile()
	case e.Size != 0 || len(e.Chunks) > 0 || len(e.Table) > 0 || len(e.Uses) > 0 || !e.ChangeTime.IsZero() || e.Inode != 0:
		return fmt.Errorf("entry %q is described like a file and is none", e.Path)
	}
	return nil
}

func checkPath(p string) error {
	switch {
	case len(p) > MaxPath:
		return fmt.Errorf("%.100q has a path of %d bytes, more than %d", p, len(p), MaxPath)
	case strings.Count(p, "/") >= MaxDepth:
		return fmt.Errorf("%.100q has a path of %d names, more than %d", p, strings.Count(p, "/")+1, MaxDepth)
	case !fs.ValidPath(p) || strings.ContainsRune(p, 0):
		return fmt.Errorf("with path %q", p)
	}
	return nil
}

func (e *Entry) checkFile() error {
	if e.Inode != 0 && e.ChangeTime.IsZero() {
		return fmt.Errorf("file %q has an inode and no change time", e.Path)
	}
	if len(e.Table) > 0 {
		return e.checkTable()
	}
	sum, err := sizeOf(e.Chunks)
	if err != nil {
		return fmt.Errorf("file %q: %w", e.Path, err)
	}
	if len(e.Uses) > 0 {
		return fmt.Errorf("file %q says what a table uses, and has none", e.Path)
	}
	if sum != e.Size {
		return fmt.Errorf("file %q of %d bytes has chunks of %d", e.Path, e.Size, sum)
	}
	return nil
}

func (e *Entry) checkTable() error {
	sum, err := sizeOf(e.Table)
	switch {
	case err != nil:
		return fmt.Errorf("file %q: table: %w", e.Path, err)
	case len(e.Chunks) > 0:
		return fmt.Errorf("file %q has chunks and a table", e.Path)
	case e.Size <= 0:
		return fmt.Errorf("file %q of %d bytes has a table", e.Path, e.Size)
	case sum > MaxTable:
		return fmt.Errorf("file %q has a table of %d bytes, more than %d", e.Path, sum, MaxTable)
	case len(e.Uses) == 0:
		return fmt.Errorf("file %q has a table that uses no segment", e.Path)
	}
	if err := checkUses(e.Uses); err != nil {
		return fmt.Errorf("file %q: table: %w", e.Path, err)
	}
	return nil
}

// sizeOf checks chunks and adds up their data.
func sizeOf(chunks []Chunk) (sum int64, err error) {
	for i := range chunks {
		if err := chunks[i].check(); err != nil {
			return 0, err
		}
		sum += chunks[i].Size
	}
	return sum, nil
}
