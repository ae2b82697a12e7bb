package api

import (
	"net/http"
	"strings"
)

// IfMatchInput makes a change meant for one version only.
type IfMatchInput struct {
	IfMatch string `header:"If-Match" maxLength:"256" doc:"The ETag of the version that the change is meant for."`
}

// check refuses with 412 where the current version is another one. It compares strongly, as If-Match demands: a weak tag never
// matches.
func (in *IfMatchInput) check(current string) error {
	if in.IfMatch == "" {
		return nil
	}
	for tag := range strings.SplitSeq(in.IfMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == current {
			return nil
		}
	}
	return problem(http.StatusPreconditionFailed, "version_mismatch", "somebody else has changed it since: get it again")
}
