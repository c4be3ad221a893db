package main

// Mistakes in what is known of files that have holes.

var inHoles = []mistake{
	{
		name:   "a hole reaches to the end of the file",
		file:   "internal/holes/holes.go",
		old:    `f.to, f.hole = min(data, f.size), true`,
		new:    `f.hole = true`,
		breaks: "a checkpoint is its state",
		tests:  append(by("internal/holes", "TestHoles"), by("checkpoint", "TestHolesAreWhatTheyReadAs")...),
	},
	{
		name:   "any file system is believed what it says of holes",
		file:   "internal/holes/holes_linux.go",
		old:    ` && filetimes.Known(int(f.Fd()))`,
		new:    ` && f.Fd() > 0`,
		breaks: "a checkpoint is its state",
		tests:  by("internal/holes", "TestUnknownFileSystem"),
	},
	{
		name: "a file of which nothing more is known is a hole",
		file: "internal/holes/holes.go",
		old: `	case err != nil:
		return
`,
		new: `	case err != nil:
		f.hole = true
`,
		breaks: "a checkpoint is its state",
		tests:  by("internal/holes", "TestClosedFile"),
	},
	{
		name:   "data before a hole that was not cut yet is taken for a part of it",
		file:   "checkpoint/sparse.go",
		old:    `start := r.pos - int64(uncut)`,
		new:    `start, uncut := r.pos, 0`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestHolesAreWhatTheyReadAs"),
	},
	{
		name:   "some of the chunks of a hole are left out",
		file:   "checkpoint/pipeline.go",
		old:    `more: chunks - 1})`,
		new:    `more: (chunks - 1) / 2})`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestHolesAreWhatTheyReadAs", "TestLongHole"),
	},
	{
		name:   "a file of one chunk of zeros is not made",
		file:   "checkpoint/restorer.go",
		old:    `return r.zeros == id && len(n.chunks) > 1`,
		new:    `return r.zeros == id && len(n.chunks) > 0`,
		breaks: "a checkpoint is its state",
		tests:  by("checkpoint", "TestDataThatOccursTwice"),
	},
	{
		name:   "a chunk that says that it is zeros is believed",
		file:   "checkpoint/sparse.go",
		old:    `return ch.Hash == zeroHash && ch.Size == int64(len(zeroChunk))`,
		new:    `return ch.Hash == zeroHash`,
		breaks: "nothing damaged is given back",
		tests:  by("checkpoint", "TestHostileStores"),
	},
	{
		name:   "what came again is counted for the next chunk, too",
		file:   "checkpoint/internal/format/table.go",
		old:    `e.last, e.again = *c, 0`,
		new:    `e.last, e.again = *c, min(e.again, 1)`,
		breaks: "what is stored can be read",
		tests:  by("checkpoint/internal/format", "TestGoldenTable", "TestTableRoundTrip"),
	},
	{
		name:   "a table of a few bytes has any number of chunks",
		file:   "checkpoint/internal/format/table.go",
		old:    `t.n > MaxTableChunks {`,
		new:    `t.n < 0 {`,
		breaks: "nobody takes memory beyond what is claimed",
		tests:  by("checkpoint/internal/format", "TestTableOfTooManyChunks"),
	},
	{
		name:   "a file of any length is read",
		file:   "checkpoint/scan.go",
		old:    `if before.Size() > format.MaxFile {`,
		new:    `if before.Size() > 4*format.MaxFile {`,
		breaks: "what is stored can be read",
		tests:  by("checkpoint", "TestFileThatIsTooLong"),
	},
	{
		name: "a copy of a sparse file ends where its data ends",
		file: "engines/dir/copy.go",
		old: `	if err := out.Truncate(size); err != nil {
		return 0, err
	}
	for n < size {`,
		new:    `	for n < size {`,
		breaks: "a checkpoint is its state",
		tests:  by("engines/dir", "TestCopyOfASparseFile"),
	},
	{
		name:   "a stream of any number of chunks is saved",
		file:   "checkpoint/pipeline.go",
		old:    `count > l.packer.memory.chunks {`,
		new:    `count > l.packer.memory.chunks && end && size < 0 {`,
		breaks: "what is stored can be read",
		tests:  by("checkpoint", "TestTooManyChunks"),
	},
}
