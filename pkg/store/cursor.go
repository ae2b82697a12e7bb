package store

import (
	"encoding/base64"
	"encoding/binary"
	"time"
)

// cursorForm is the first byte of a cursor; a cursor of another form is refused, not misread.
const cursorForm = 1

// Cursor is the opaque cursor after the row with this time and id.
func Cursor(at time.Time, id string) string {
	b := binary.BigEndian.AppendUint64([]byte{cursorForm}, uint64(at.UnixMicro()))
	return base64.RawURLEncoding.EncodeToString(append(b, id...))
}

// ParseCursor reads what [Cursor] made, or returns [ErrBadCursor].
func ParseCursor(cursor string) (at time.Time, id string, err error) {
	const head = 1 + 8
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) <= head || b[0] != cursorForm || Text(string(b[head:])) != string(b[head:]) {
		return time.Time{}, "", ErrBadCursor
	}
	at = time.UnixMicro(int64(binary.BigEndian.Uint64(b[1:]))).UTC()
	if at.Before(earliest) || !at.Before(latest) {
		return time.Time{}, "", ErrBadCursor
	}
	return at, string(b[head:]), nil
}

// Bounds of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Size is the page's limit within its bounds.
func (p Page) Size() int {
	if p.Limit <= 0 {
		return DefaultLimit
	}
	return min(p.Limit, MaxLimit)
}
