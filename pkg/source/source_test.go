package source

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

const secret = "a-secret-of-the-aggregator"

var at = time.Unix(1_700_000_000, 0)

func mac(h func() hash.Hash, key, content string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(content))
	return m.Sum(nil)
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func compiled(t testing.TB, verify string) *Source {
	t.Helper()
	s, err := Compile(json.RawMessage(`{"verify": ` + verify + `, "event": {"type": {"const": "a.b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reasonOf(err error) Reason {
	var wrong *Error
	if errors.As(err, &wrong) {
		return wrong.Reason
	}
	if err != nil {
		return "another error"
	}
	return ""
}

func TestARequestIsTheThirdPartysOwnOrRefusedWithAReason(t *testing.T) {
	const body = `{"n": 1}`
	stamp := strconv.FormatInt(at.Unix(), 10)
	old := strconv.FormatInt(at.Add(-6*time.Minute).Unix(), 10)
	future := strconv.FormatInt(at.Add(6*time.Minute).Unix(), 10)
	hexOf := func(h func() hash.Hash, content string) string { return hex.EncodeToString(mac(h, secret, content)) }
	base := base64.StdEncoding.EncodeToString
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	edKey := hex.EncodeToString(public)
	edSigned := func(content string) string { return hex.EncodeToString(ed25519.Sign(private, []byte(content))) }
	millis, date := strconv.FormatInt(at.UnixMilli(), 10), at.UTC().Format(time.RFC3339)
	const plain = `{"scheme": "hmac", "header": "X-Signature", "prefix": "sha256="}`
	const stripe = `{"scheme": "hmac", "header": "Signature", "separator": ",", "prefix": "v1=", "content": "{timestamp}.{body}", "timestamp": {"prefix": "t="}}`
	const standard = `{"scheme": "hmac", "header": "webhook-signature", "separator": " ", "prefix": "v1,", "encoding": "base64",
		"content": "{header:webhook-id}.{timestamp}.{body}", "timestamp": {"header": "webhook-timestamp"}, "key": {"prefix": "whsec_", "encoding": "base64"}}`
	const slack = `{"scheme": "hmac", "header": "X-Signature", "prefix": "v0=", "content": "v0:{timestamp}:{body}", "timestamp": {"header": "X-Timestamp", "tolerance": "5m"}}`
	const discord = `{"scheme": "ed25519", "header": "X-Signature-Ed25519", "content": "{timestamp}{body}", "timestamp": {"header": "X-Signature-Timestamp"}, "key": {"encoding": "hex"}}`
	stamped := func(format string) string {
		return `{"scheme": "hmac", "header": "X-S", "content": "{timestamp}{body}", "timestamp": {"header": "X-T", "format": "` + format + `"}}`
	}
	standardKey := "whsec_" + base([]byte(secret))
	for name, c := range map[string]struct {
		verify string
		header http.Header
		secret string
		want   Reason
	}{
		"HMAC over the body":            {plain, headers("X-Signature", "sha256="+hexOf(sha256.New, body)), secret, ""},
		"upper-case hex":                {plain, headers("X-Signature", "sha256="+strings.ToUpper(hexOf(sha256.New, body))), secret, ""},
		"another key":                   {plain, headers("X-Signature", "sha256="+hexOf(sha256.New, body)), "another", BadSignature},
		"another body":                  {plain, headers("X-Signature", "sha256="+hexOf(sha256.New, body+" ")), secret, BadSignature},
		"no header":                     {plain, headers(), secret, MissingSignature},
		"the header twice":              {plain, headers("X-Signature", "sha256="+hexOf(sha256.New, body), "X-Signature", "sha256="+hexOf(sha256.New, body)), secret, MissingSignature},
		"another prefix":                {plain, headers("X-Signature", hexOf(sha256.New, body)), secret, MissingSignature},
		"no hex":                        {plain, headers("X-Signature", "sha256=xyz"), secret, MissingSignature},
		"an empty signature":            {plain, headers("X-Signature", "sha256="), secret, MissingSignature},
		"a cut signature":               {plain, headers("X-Signature", "sha256="+hexOf(sha256.New, body)[:32]), secret, BadSignature},
		"SHA-1":                         {`{"scheme": "hmac", "header": "X-S", "algorithm": "sha1"}`, headers("X-S", hexOf(sha1.New, body)), secret, ""},
		"SHA-512 in base64":             {`{"scheme": "hmac", "header": "X-S", "algorithm": "sha512", "encoding": "base64"}`, headers("X-S", base(mac(sha512.New, secret, body))), secret, ""},
		"SHA-256 where SHA-512 is":      {`{"scheme": "hmac", "header": "X-S", "algorithm": "sha512"}`, headers("X-S", hexOf(sha256.New, body)), secret, BadSignature},
		"timestamp and body":            {stripe, headers("Signature", "t="+stamp+",v1="+hexOf(sha256.New, stamp+"."+body)), secret, ""},
		"the second signature fits":     {stripe, headers("Signature", "t="+stamp+",v1=00,v1="+hexOf(sha256.New, stamp+"."+body)), secret, ""},
		"stale":                         {stripe, headers("Signature", "t="+old+",v1="+hexOf(sha256.New, old+"."+body)), secret, Stale},
		"from the future":               {stripe, headers("Signature", "t="+future+",v1="+hexOf(sha256.New, future+"."+body)), secret, Stale},
		"old with a new timestamp":      {stripe, headers("Signature", "t="+stamp+",v1="+hexOf(sha256.New, old+"."+body)), secret, BadSignature},
		"forged and stale is forged":    {stripe, headers("Signature", "t="+old+",v1="+hexOf(sha256.New, "x")), secret, BadSignature},
		"no timestamp":                  {stripe, headers("Signature", "v1="+hexOf(sha256.New, "."+body)), secret, MissingTimestamp},
		"two timestamps":                {stripe, headers("Signature", "t="+old+",t="+stamp+",v1="+hexOf(sha256.New, stamp+"."+body)), secret, MissingTimestamp},
		"a timestamp that is none":      {stripe, headers("Signature", "t=now,v1="+hexOf(sha256.New, "now."+body)), secret, MissingTimestamp},
		"a timestamp out of all bounds": {stripe, headers("Signature", "t=9999999999999999,v1="+hexOf(sha256.New, "9999999999999999."+body)), secret, MissingTimestamp},
		"Standard Webhooks": {standard, headers("Webhook-Id", "m1", "Webhook-Timestamp", stamp, "Webhook-Signature",
			"v1a,AAAA v1,"+base(mac(sha256.New, secret, "m1."+stamp+"."+body))), standardKey, ""},
		"Standard Webhooks under another id": {standard, headers("Webhook-Id", "m2", "Webhook-Timestamp", stamp, "Webhook-Signature",
			"v1,"+base(mac(sha256.New, secret, "m1."+stamp+"."+body))), standardKey, BadSignature},
		"a literal in the content":          {slack, headers("X-Timestamp", stamp, "X-Signature", "v0="+hexOf(sha256.New, "v0:"+stamp+":"+body)), secret, ""},
		"Ed25519":                           {`{"scheme": "ed25519", "header": "X-S", "key": {"encoding": "hex"}}`, headers("X-S", hex.EncodeToString(ed25519.Sign(private, []byte(body)))), edKey, ""},
		"Ed25519 over another body":         {`{"scheme": "ed25519", "header": "X-S", "key": {"encoding": "hex"}}`, headers("X-S", hex.EncodeToString(ed25519.Sign(private, []byte("x")))), edKey, BadSignature},
		"Ed25519 with a short key":          {`{"scheme": "ed25519", "header": "X-S", "key": {"encoding": "hex"}}`, headers("X-S", hex.EncodeToString(ed25519.Sign(private, []byte(body)))), "00", BadSignature},
		"Ed25519 with a timestamp":          {discord, headers("X-Signature-Ed25519", edSigned(stamp+body), "X-Signature-Timestamp", stamp), edKey, ""},
		"Ed25519, stale":                    {discord, headers("X-Signature-Ed25519", edSigned(old+body), "X-Signature-Timestamp", old), edKey, Stale},
		"Ed25519 under another timestamp":   {discord, headers("X-Signature-Ed25519", edSigned(old+body), "X-Signature-Timestamp", stamp), edKey, BadSignature},
		"Ed25519 without a timestamp":       {discord, headers("X-Signature-Ed25519", edSigned(body)), edKey, MissingTimestamp},
		"Ed25519 by another":                {discord, headers("X-Signature-Ed25519", edSigned(stamp+body), "X-Signature-Timestamp", stamp), strings.Repeat("00", 32), BadSignature},
		"Ed25519, a signature that is none": {discord, headers("X-Signature-Ed25519", "00", "X-Signature-Timestamp", stamp), edKey, BadSignature},
		"Ed25519 with a key in base64":      {`{"scheme": "ed25519", "header": "X-S", "encoding": "base64", "key": {"encoding": "base64"}}`, headers("X-S", base(ed25519.Sign(private, []byte(body)))), base(public), ""},
		"SHA-512 in base64url":              {`{"scheme": "hmac", "header": "X-S", "algorithm": "sha512", "encoding": "base64url"}`, headers("X-S", base64.RawURLEncoding.EncodeToString(mac(sha512.New, secret, body))), secret, ""},
		"base64 where hex is":               {plain, headers("X-Signature", "sha256="+base(mac(sha256.New, secret, body))), secret, MissingSignature},
		"a time in milliseconds":            {stamped("unix_ms"), headers("X-S", hexOf(sha256.New, millis+body), "X-T", millis), secret, ""},
		"seconds where milliseconds are":    {stamped("unix_ms"), headers("X-S", hexOf(sha256.New, stamp+body), "X-T", stamp), secret, Stale},
		"a time as a date":                  {stamped("rfc3339"), headers("X-S", hexOf(sha256.New, date+body), "X-T", date), secret, ""},
		"a date that is none":               {stamped("rfc3339"), headers("X-S", hexOf(sha256.New, stamp+body), "X-T", stamp), secret, MissingTimestamp},
		"the timestamp's header twice":      {stamped("unix"), headers("X-S", hexOf(sha256.New, stamp+body), "X-T", stamp, "X-T", stamp), secret, MissingTimestamp},
		"a token, and another one":          {`{"scheme": "token", "header": "X-Token"}`, headers("X-Token", secret, "X-Token", "x"), secret, MissingSignature},
		"no token":                          {`{"scheme": "token", "header": "X-Token"}`, headers(), secret, MissingSignature},
		"no basic":                          {`{"scheme": "basic", "username": "mx"}`, headers(), secret, MissingSignature},
		"a token":                           {`{"scheme": "token", "header": "X-Token"}`, headers("X-Token", secret), secret, ""},
		"a bearer token":                    {`{"scheme": "token", "prefix": "Bearer "}`, headers("Authorization", "Bearer "+secret), secret, ""},
		"another token":                     {`{"scheme": "token", "prefix": "Bearer "}`, headers("Authorization", "Bearer x"), secret, BadCredentials},
		"no bearer token":                   {`{"scheme": "token", "prefix": "Bearer "}`, headers("Authorization", secret), secret, MissingSignature},
		"basic":                             {`{"scheme": "basic", "username": "mx"}`, headers("Authorization", "Basic "+base([]byte("mx:"+secret))), secret, ""},
		"basic, another user":               {`{"scheme": "basic", "username": "mx"}`, headers("Authorization", "Basic "+base([]byte("my:"+secret))), secret, BadCredentials},
		"basic, another password":           {`{"scheme": "basic", "username": "mx"}`, headers("Authorization", "Basic "+base([]byte("mx:x"))), secret, BadCredentials},
		"basic that is none":                {`{"scheme": "basic", "username": "mx"}`, headers("Authorization", "Basic !"), secret, MissingSignature},
		"a secret that cannot be it":        {`{"scheme": "hmac", "header": "X-S", "key": {"encoding": "hex"}}`, headers("X-S", hexOf(sha256.New, body)), "no hex", BadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			s := compiled(t, c.verify)
			err := s.Verify(Request{Header: c.header, Body: []byte(body)}, [][]byte{[]byte(c.secret)}, at)
			if got := reasonOf(err); got != c.want {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), c.secret) {
				t.Errorf("the error shows the secret: %v", err)
			}
			if got := reasonOf(s.Verify(Request{Header: c.header, Body: []byte(body)}, nil, at)); got != NoSecret {
				t.Errorf("without a secret: %q", got)
			}
		})
	}
}

func TestDuringARotationEitherSecretFits(t *testing.T) {
	s := compiled(t, `{"scheme": "hmac", "header": "X-S"}`)
	r := Request{Header: headers("X-S", hex.EncodeToString(mac(sha256.New, "old", "{}"))), Body: []byte("{}")}
	if err := s.Verify(r, [][]byte{[]byte("new"), []byte("old")}, at); err != nil {
		t.Error(err)
	}
}

func TestASpecificationThatCannotBeMeantIsRefused(t *testing.T) {
	event := `"event": {"type": {"const": "a"}}`
	hmacOf := func(more string) string {
		return `{"verify": {"scheme": "hmac", "header": "X"` + more + `}, ` + event + `}`
	}
	for name, c := range map[string]struct{ spec, pointer string }{
		"not an object":                 {`[]`, ""},
		"an unknown field":              {`{"verifi": {}}`, ""},
		"a key twice":                   {`{"verify": {}, "verify": {}}`, ""},
		"too large":                     {`{"x": "` + strings.Repeat("x", MaxSpec) + `"}`, ""},
		"no scheme":                     {`{"verify": {}, ` + event + `}`, "/verify/scheme"},
		"no header":                     {`{"verify": {"scheme": "hmac"}, ` + event + `}`, "/verify/header"},
		"a header that is none":         {`{"verify": {"scheme": "token", "header": "a b"}, ` + event + `}`, "/verify/header"},
		"an algorithm that is broken":   {hmacOf(`, "algorithm": "md5"`), "/verify/algorithm"},
		"an encoding of nothing":        {hmacOf(`, "encoding": "base32"`), "/verify/encoding"},
		"a content without the body":    {hmacOf(`, "content": "{timestamp}", "timestamp": {"header": "T"}`), "/verify/content"},
		"an unsigned timestamp":         {hmacOf(`, "timestamp": {"header": "T"}`), "/verify/content"},
		"a content of unknown parts":    {hmacOf(`, "content": "{body}{url}"`), "/verify/content"},
		"a timestamp of nowhere":        {hmacOf(`, "content": "{timestamp}{body}", "timestamp": {}`), "/verify/timestamp"},
		"a timestamp in an only item":   {hmacOf(`, "content": "{timestamp}{body}", "timestamp": {"prefix": "t="}`), "/verify/timestamp"},
		"a tolerance without end":       {hmacOf(`, "content": "{timestamp}{body}", "timestamp": {"header": "T", "tolerance": "25h"}`), "/verify/timestamp/tolerance"},
		"a token that is signed":        {`{"verify": {"scheme": "token", "algorithm": "sha1"}, ` + event + `}`, "/verify"},
		"basic without a name":          {`{"verify": {"scheme": "basic"}, ` + event + `}`, "/verify"},
		"a name for a token":            {`{"verify": {"scheme": "token", "username": "a"}, ` + event + `}`, "/verify/username"},
		"a value of nothing":            {`{"verify": {"scheme": "token"}, "event": {"type": {}}}`, "/event/type"},
		"a value of two":                {`{"verify": {"scheme": "token"}, "event": {"type": {"const": "a", "header": "X"}}}`, "/event/type"},
		"a pointer that is none":        {`{"verify": {"scheme": "token"}, "event": {"type": {"pointer": "a"}}}`, "/event/type/pointer"},
		"an expression that is none":    {`{"verify": {"scheme": "token"}, "event": {"type": {"cel": "body."}}}`, "/event/type/cel"},
		"an expression without bounds":  {`{"verify": {"scheme": "token"}, "event": {"type": {"cel": "body.a.all(x, body.a.all(y, body.a.all(z, x == y)))"}}}`, "/event/type/cel"},
		"a connection that is not told": {`{"verify": {"scheme": "token"}, "event": {"type": {"connection": "id"}}}`, "/connection"},
		"a field of no connection":      {`{"verify": {"scheme": "token"}, "event": {"type": {"connection": "secret"}}}`, "/event/type/connection"},
		"an id by the connection":       {`{"verify": {"scheme": "token"}, "id": {"connection": "id"}, "connection": {"aggregator": "a", "remoteId": {"raw": true}}, ` + event + `}`, "/connection"},
		"no aggregator":                 {`{"verify": {"scheme": "token"}, "connection": {"remoteId": {"raw": true}}, ` + event + `}`, "/connection/aggregator"},
		"a member twice":                {`{"verify": {"scheme": "token"}, "event": {"type": {"const": "a"}, "data": [{"name": "a", "raw": true}, {"name": "a", "raw": true}]}}`, "/event/data/1/name"},
		"a size beyond the bound":       {`{"verify": {"scheme": "token"}, "maxBytes": 99999999, ` + event + `}`, "/maxBytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(json.RawMessage(c.spec))
			var wrong *SpecError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.pointer+": ") {
				t.Errorf("got %v, want something at %q", err, c.pointer)
			}
		})
	}
}

func TestASecretMustFitItsScheme(t *testing.T) {
	for name, c := range map[string]struct {
		verify, secret string
		ok             bool
	}{
		"any text":       {`{"scheme": "token"}`, "x", true},
		"nothing":        {`{"scheme": "token"}`, "", false},
		"hex":            {`{"scheme": "hmac", "header": "X", "key": {"encoding": "hex"}}`, "00ff", true},
		"no hex":         {`{"scheme": "hmac", "header": "X", "key": {"encoding": "hex"}}`, "zz", false},
		"a public key":   {`{"scheme": "ed25519", "header": "X", "key": {"encoding": "hex"}}`, strings.Repeat("00", 32), true},
		"half a key":     {`{"scheme": "ed25519", "header": "X", "key": {"encoding": "hex"}}`, strings.Repeat("00", 16), false},
		"without prefix": {`{"scheme": "hmac", "header": "X", "key": {"prefix": "whsec_", "encoding": "base64"}}`, "AAAA", true},
	} {
		if err := compiled(t, c.verify).CheckSecret([]byte(c.secret)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// seedRemote is the body that the aggregator posts in the example of Fuse's documents.
const seedRemote = `{"type":"AGGREGATION","action":"member_data_updated","user_guid":"USR-67bcb452-225e-11ee-be56-0242ac120002","user_id":"67bcb452-225e-11ee-be56-0242ac120002","member_guid":"MBR-67bcb452-225e-11ee-be56-0242ac120002","job_guid":"JOB-ebdbcc48-1823-41da-96ef-adc2dc2fd6ec","transactions_created_count":2,"transactions_updated_count":0,"is_background":true,"completed_at":1688527757,"completed_on":"2023-07-05"}`

const fuseSpec = `{
	"verify": {"scheme": "token", "header": "X-Token"},
	"id": {"header": "X-Request-Id"},
	"connection": {"aggregator": "mx", "remoteId": {"pointer": "/member_guid"}},
	"event": {
		"type": {"const": "financial_connection.sync_data"},
		"orderingKey": {"connection": "id"},
		"data": [
			{"name": "financial_connection_id", "connection": "id"},
			{"name": "environment", "connection": "environment"},
			{"name": "source", "connection": "aggregator"},
			{"name": "remote_data", "raw": true}
		]
	}
}`

var seedConnection = &webhook.Connection{ConnectionID: "67bcb452-225e-11ee-be56-0242ac120002", Client: "acme", Aggregator: "mx", Environment: "sandbox"}

func eventOf(t *testing.T, spec, body string, h http.Header, c *webhook.Connection) (webhook.Event, *Message, error) {
	t.Helper()
	s, err := Compile(json.RawMessage(spec))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check([]byte(body)); err != nil {
		return webhook.Event{}, nil, err
	}
	m, err := s.Read(Request{Header: h, Body: []byte(body)})
	if err != nil {
		return webhook.Event{}, m, err
	}
	e, err := m.Event(c)
	return e, m, err
}

func TestTheEventOfTheFuseSourceIsThatOfTheDocuments(t *testing.T) {
	e, m, err := eventOf(t, fuseSpec, seedRemote, headers("X-Request-Id", "r1"), seedConnection)
	if err != nil {
		t.Fatal(err)
	}
	quoted := strings.ReplaceAll(seedRemote, `"`, `\"`)
	want := `{"financial_connection_id":"67bcb452-225e-11ee-be56-0242ac120002","environment":"sandbox","source":"mx","remote_data":"` + quoted + `"}`
	if string(e.Data) != want {
		t.Errorf("data:\n%s\nwant:\n%s", e.Data, want)
	}
	if e.Type != "financial_connection.sync_data" || e.Tenant != "acme" || e.OrderingKey != seedConnection.ConnectionID {
		t.Errorf("event %+v", e)
	}
	if m.SenderID != "r1" || m.Aggregator != "mx" || m.RemoteID != "MBR-67bcb452-225e-11ee-be56-0242ac120002" {
		t.Errorf("message %+v", m)
	}
	if _, _, err := eventOf(t, fuseSpec, seedRemote, headers(), nil); reasonOf(err) != UnknownConnection {
		t.Errorf("without a connection: %v", err)
	}
	if _, _, err := eventOf(t, fuseSpec, `{}`, headers(), seedConnection); reasonOf(err) != MappingFailed {
		t.Errorf("without a remote id: %v", err)
	}
}

func TestTheRawBodyIsKeptByteForByte(t *testing.T) {
	for _, body := range []string{
		"{\n  \"a\": 1.00,\t\"b\": \"<&>\\u2028\u2028é\U0001F600\"}\r\n", `{"big":12345678901234567890123}`, `{"__proto__":{"1":2},"\\":"\u0000"}`,
	} {
		e, _, err := eventOf(t, `{"verify": {"scheme": "token"}, "event": {"type": {"const": "a"}, "data": [{"name": "r", "raw": true}]}}`, body, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ R string }
		if err := json.Unmarshal(e.Data, &got); err != nil || got.R != body {
			t.Errorf("got %q, want %q (%v)", got.R, body, err)
		}
	}
	const plain = `{"b": 1.0, "a": [ 2 ] }`
	if e, _, err := eventOf(t, `{"verify": {"scheme": "token"}, "event": {"type": {"const": "a"}}}`, plain, nil, nil); err != nil || string(e.Data) != plain {
		t.Errorf("data %q (%v), want the body as it is", e.Data, err)
	}
}

func TestValuesAreTakenFromWhereTheSpecificationSays(t *testing.T) {
	const body = `{"type": "order.paid", "n": 12345678901234567890, "list": [{"x": 1.50}], "none": null, "a/b": {"~": true}, "deep": {"text": "é"}}`
	for name, c := range map[string]struct{ value, want string }{
		"a constant":            {`"const": {"a": [1]}`, `{"a":[1]}`},
		"a text":                {`"pointer": "/type"`, `"order.paid"`},
		"digits as they are":    {`"pointer": "/list/0/x"`, `1.50`},
		"an escaped pointer":    {`"pointer": "/a~1b/~0"`, `true`},
		"the whole":             {`"pointer": ""`, body},
		"a null":                {`"pointer": "/none"`, `null`},
		"a header":              {`"header": "x-trace"`, `"t\"1"`},
		"an expression":         {`"cel": "body.type.startsWith('order') ? 'o' : 'x'"`, `"o"`},
		"a large number by CEL": {`"cel": "body.n"`, `12345678901234567890`},
		"a map by CEL":          {`"cel": "{'b': [1, 2.5, null, true], 'a': body.deep.text}"`, `{"a":"é","b":[1,2.5,null,true]}`},
		"headers in CEL":        {`"cel": "headers['x-trace']"`, `"t\"1"`},
		"what is not there":     {`"pointer": "/nothing/0", "optional": true`, ``},
		"no such element":       {`"pointer": "/list/7", "optional": true`, ``},
		"no such key in CEL":    {`"cel": "body.nothing.at.all", "optional": true`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			spec := `{"verify": {"scheme": "token"}, "event": {"type": {"const": "a"}, "data": [{"name": "v", ` + c.value + `}]}}`
			e, _, err := eventOf(t, spec, body, headers("X-Trace", `t"1`), nil)
			want := `{"v":` + c.want + `}`
			if c.want == "" {
				want = `{}`
			}
			if err != nil || string(e.Data) != want && name != "a constant" || name == "a constant" && string(e.Data) != `{"v":{"a": [1]}}` {
				t.Errorf("got %s (%v), want %s", e.Data, err, want)
			}
		})
	}
}

func TestWhatDoesNotMakeAnEventSaysWhy(t *testing.T) {
	spec := func(event string) string { return `{"verify": {"scheme": "token"}, "event": ` + event + `}` }
	for name, c := range map[string]struct {
		spec, body string
		want       Reason
	}{
		"no JSON":              {spec(`{"type": {"const": "a"}}`), `no`, "invalid_json"},
		"nested too deep":      {spec(`{"type": {"const": "a"}}`), strings.Repeat("[", 65) + strings.Repeat("]", 65), "too_deep"},
		"a key twice":          {spec(`{"type": {"const": "a"}}`), `{"a":1,"a":2}`, "duplicate_key"},
		"no UTF-8":             {spec(`{"type": {"const": "a"}, "data": [{"name": "r", "raw": true}]}`), "\xff", "invalid_utf8"},
		"no type":              {spec(`{"type": {"pointer": "/type"}}`), `{}`, MappingFailed},
		"a type that is none":  {spec(`{"type": {"pointer": "/type"}}`), `{"type":[]}`, MappingFailed},
		"a member is missing":  {spec(`{"type": {"const": "a"}, "data": [{"name": "x", "pointer": "/x"}]}`), `{}`, MappingFailed},
		"an expression fails":  {spec(`{"type": {"const": "a"}, "data": [{"name": "x", "cel": "body.a / 0"}]}`), `{"a":1}`, MappingFailed},
		"a key that is a list": {spec(`{"type": {"const": "a"}, "orderingKey": {"pointer": "/k"}}`), `{"k":[]}`, MappingFailed},
	} {
		if _, _, err := eventOf(t, c.spec, c.body, nil, nil); reasonOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if e, _, err := eventOf(t, spec(`{"type": {"const": "a"}, "data": [{"name": "r", "raw": true}]}`), "not=json", nil, nil); err != nil || string(e.Data) != `{"r":"not=json"}` {
		t.Errorf("a body that is no JSON, where nothing of it is asked for: %s %v", e.Data, err)
	}
}

func FuzzVerificationNeverLetsAChangeThrough(f *testing.F) {
	const spec = `{"scheme": "hmac", "header": "Signature", "separator": ",", "prefix": "v1=", "content": "{timestamp}.{body}", "timestamp": {"prefix": "t="}}`
	stamp := strconv.FormatInt(at.Unix(), 10)
	good := "t=" + stamp + ",v1=" + hex.EncodeToString(mac(sha256.New, secret, stamp+".{}"))
	f.Add(good, []byte("{}"))
	f.Add("t=1,v1=00", []byte("{ }"))
	f.Add("t="+stamp+",,v1=,v1", []byte{})
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		s := compiled(t, spec)
		err := s.Verify(Request{Header: headers("Signature", header), Body: body}, [][]byte{[]byte(secret)}, at)
		if err == nil && (string(body) != "{}" || !strings.Contains(strings.ToLower(header), good[len(good)-64:])) {
			t.Errorf("accepted %q with the body %q", header, body)
		}
	})
}

func FuzzMappingMakesJSONOrAReason(f *testing.F) {
	f.Add(`{"member_guid":"m","x":[1,2]}`, "r1")
	f.Add(`{"member_guid":1e400}`, "")
	f.Add(`{"member_guid":"\ud800"}`, "\x00")
	s, err := Compile(json.RawMessage(strings.Replace(fuseSpec, `{"name": "remote_data"`, `{"name": "x", "cel": "body.x", "optional": true}, {"name": "remote_data"`, 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, id string) {
		r := Request{Header: headers("X-Request-Id", id), Body: []byte(body)}
		if s.Check(r.Body) != nil {
			return
		}
		m, err := s.Read(r)
		if err != nil {
			if reasonOf(err) != MappingFailed {
				t.Errorf("read: %v", err)
			}
			return
		}
		e, err := m.Event(seedConnection)
		if err != nil {
			if reasonOf(err) != MappingFailed {
				t.Errorf("event: %v", err)
			}
			return
		}
		var back struct {
			RemoteData string `json:"remote_data"`
		}
		if err := json.Unmarshal(e.Data, &back); err != nil || back.RemoteData != body {
			t.Errorf("%q became %s (%v)", body, e.Data, err)
		}
	})
}
