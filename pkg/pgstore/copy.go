package pgstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
)

// rows builds the body of a COPY in Postgres' binary format. Written by hand because the driver's own way boxes every value,
// which costs more than all else the recorder does.
//
// https://www.postgresql.org/docs/current/sql-copy.html, Binary Format
type rows struct{ b []byte }

// newRows makes room for so many rows of a usual size.
func newRows(n, size int) *rows {
	return &rows{b: append(make([]byte, 0, len(copyHead)+n*size), copyHead...)}
}

var (
	copyHead = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	copyTail = []byte{0xff, 0xff}
	// Postgres counts time from here.
	pgEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
)

// row starts a row; exactly as many values must follow.
func (r *rows) row(columns int) { r.b = binary.BigEndian.AppendUint16(r.b, uint16(columns)) }

func (r *rows) size(n int) { r.b = binary.BigEndian.AppendUint32(r.b, uint32(n)) }
func (r *rows) null()      { r.b = append(r.b, 0xff, 0xff, 0xff, 0xff) }
func (r *rows) int4(v int) { r.size(4); r.b = binary.BigEndian.AppendUint32(r.b, uint32(int32(v))) }
func (r *rows) int8(v int64) {
	r.size(8)
	r.b = binary.BigEndian.AppendUint64(r.b, uint64(v))
}

func (r *rows) bool(v bool) {
	r.size(1)
	if v {
		r.b = append(r.b, 1)
	} else {
		r.b = append(r.b, 0)
	}
}

func (r *rows) text(s string) {
	r.size(len(s))
	r.b = append(r.b, s...)
}

// bytes writes bytea; nil is NULL.
func (r *rows) bytes(b []byte) {
	if b == nil {
		r.null()
		return
	}
	r.size(len(b))
	r.b = append(r.b, b...)
}

func (r *rows) uuid(id uuid.UUID) {
	r.size(len(id))
	r.b = append(r.b, id[:]...)
}

// time writes timestamptz; a zero time is NULL.
func (r *rows) time(t time.Time) {
	if t.IsZero() {
		r.null()
		return
	}
	r.int8(t.UnixMicro() - pgEpoch)
}

// send copies the rows into a table. The same rows may be sent again.
func (r *rows) send(ctx context.Context, conn *pgconn.PgConn, table, columns string) error {
	body := io.MultiReader(bytes.NewReader(r.b), bytes.NewReader(copyTail))
	_, err := conn.CopyFrom(ctx, body, "COPY "+table+" ("+columns+") FROM STDIN (FORMAT binary)")
	return err
}
