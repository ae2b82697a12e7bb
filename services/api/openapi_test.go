package api

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

const openAPIFile = "../../docs/openapi.json"

func TestTheCommittedOpenAPIIsTheAPI(t *testing.T) {
	t.Parallel()
	s := assembled(t)
	if *update {
		if err := os.WriteFile(openAPIFile, s.OpenAPI(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, s.OpenAPI()) {
		t.Error("docs/openapi.json is not what the code says: go test ./services/api -run OpenAPI -update")
	}
}
