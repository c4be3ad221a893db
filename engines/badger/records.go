package badger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	badgerdb "github.com/dgraph-io/badger/v4"
)

// A file of records begins with magic. A record is the lengths of its key and its value, as
// varints; the time at which it expires, in seconds since 1970, as a varint, 0 for never; the
// user's meta, a byte; the key; and the value. A record whose key has no length ends the
// file: no key of Badger's is empty.
const magic = "holdfast badger 1\n"

// maxLength bounds a key or a value, in bytes. Badger's own bound of a value is the size of a
// value log file (Options.ValueLogFileSize), by default a byte less than 1 GiB.
const maxLength = 1 << 30

// bound refuses what cannot be read again, both when it is written and when it is read.
func bound(key, value uint64) error {
	if key > maxLength || value > maxLength {
		return fmt.Errorf("a record with a key of %d bytes and a value of %d bytes, longer than %d", key, value, maxLength)
	}
	return nil
}

// writeAll writes all that a transaction sees, in the order of the keys.
func writeAll(w io.Writer, tx *badgerdb.Txn) error {
	out := bufio.NewWriterSize(w, 64<<10)
	if _, err := out.WriteString(magic); err != nil {
		return err
	}
	it := tx.NewIterator(badgerdb.DefaultIteratorOptions)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if err := write(out, it.Item()); err != nil {
			return err
		}
	}
	if err := out.WriteByte(0); err != nil {
		return err
	}
	return out.Flush()
}

func write(out *bufio.Writer, item *badgerdb.Item) error {
	return item.Value(func(value []byte) error {
		key := item.Key()
		if err := bound(uint64(len(key)), uint64(len(value))); err != nil {
			return err
		}
		head := binary.AppendUvarint(nil, uint64(len(key)))
		head = binary.AppendUvarint(head, uint64(len(value)))
		head = binary.AppendUvarint(head, item.ExpiresAt())
		head = append(head, item.UserMeta())
		for _, part := range [][]byte{head, key, value} {
			if _, err := out.Write(part); err != nil {
				return err
			}
		}
		return nil
	})
}

// readAll writes all records of a file to a database.
func readAll(r io.Reader, db *badgerdb.DB) error {
	in := bufio.NewReaderSize(r, 64<<10)
	begin := make([]byte, len(magic))
	if _, err := io.ReadFull(in, begin); err != nil || string(begin) != magic {
		return errors.Join(errors.New("it is no file of records of a Badger database"), err)
	}
	batch := db.NewWriteBatch()
	defer batch.Cancel()
	for {
		entry, err := read(in)
		if errors.Is(err, io.EOF) {
			return batch.Flush()
		}
		if err != nil {
			return err
		}
		if err := batch.SetEntry(entry); err != nil {
			return err
		}
	}
}

// read returns the next record, or io.EOF at the mark of the end.
func read(in *bufio.Reader) (*badgerdb.Entry, error) {
	var head [3]uint64
	for i := range head {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return nil, cutOff(err)
		}
		if i == 0 && n == 0 {
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				return nil, errors.Join(errors.New("it goes on after its end"), err)
			}
			return nil, io.EOF
		}
		head[i] = n
	}
	if err := bound(head[0], head[1]); err != nil {
		return nil, err
	}
	meta, err := in.ReadByte()
	if err != nil {
		return nil, cutOff(err)
	}
	data := make([]byte, head[0]+head[1])
	if _, err := io.ReadFull(in, data); err != nil {
		return nil, cutOff(err)
	}
	entry := badgerdb.NewEntry(data[:head[0]:head[0]], data[head[0]:]).WithMeta(meta)
	entry.ExpiresAt = head[2]
	return entry, nil
}

// cutOff makes the end of the file an error, because the mark of the end comes first.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
