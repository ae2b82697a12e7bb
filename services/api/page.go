package api

import (
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
)

// pageView is a part of a list, and where the next part begins.
type pageView[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"nextCursor" doc:"Send it as cursor to get the next part; null at the end."`
}

type pageOutput[T any] struct{ Body pageView[T] }

// PageInput are the parameters of every list. Here and below, what is embedded is exported because huma leaves out what is
// not.
type PageInput struct {
	Cursor string `query:"cursor" maxLength:"512" doc:"The nextCursor of the part before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many items."`
}

func (p *PageInput) page() store.Page { return store.Page{Cursor: p.Cursor, Limit: p.Limit} }

// paged answers with one view for each row.
func paged[R, V any](rows []R, next string, view func(*R) V) *pageOutput[V] {
	out := &pageOutput[V]{Body: pageView[V]{Items: make([]V, len(rows)), NextCursor: orNull(next)}}
	for i := range rows {
		out.Body.Items[i] = view(&rows[i])
	}
	return out
}

// orNull is null for what is not there.
func orNull[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// IDInput is the id in a path.
type IDInput struct {
	ID string `path:"id" maxLength:"64" pattern:"^[!-~]+$" patternDescription:"an id"`
}

// newID makes an id that nobody can guess and that sorts by time.
func newID() string { return uuid.Must(uuid.NewV7()).String() }
