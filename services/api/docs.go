package api

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"regexp"
)

// DocsPath is where the description of the API is readable for people.
const DocsPath = "/api/docs"

//go:embed docs.html
var docsPage []byte

// docsPolicy lets the page run its own script and style, known by their hashes, and read the description beside it; nothing else.
var docsPolicy = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"script-src " + inlined("script") + "; style-src " + inlined("style")

// inlined is the hash of what the page has between two tags.
func inlined(tag string) string {
	content := regexp.MustCompile(`(?s)<` + tag + `>(.*?)</` + tag + `>`).FindSubmatch(docsPage)[1]
	sum := sha256.Sum256(content)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func serveDocs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", docsPolicy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(docsPage) // the reader may have gone
}
