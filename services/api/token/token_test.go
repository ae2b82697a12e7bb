package token

import (
	"slices"
	"testing"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestTheProvidersConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  Config
		good bool
	}{
		"none":             {Config{}, true},
		"whole":            {Config{Issuer: "https://id.example.com/realm", Audience: "a", TenantClaim: "t", PermissionsClaim: "p"}, true},
		"without audience": {Config{Issuer: "https://id.example.com", TenantClaim: "t", PermissionsClaim: "p"}, false},
		"without issuer":   {Config{Audience: "a", TenantClaim: "t", PermissionsClaim: "p"}, false},
		"not a URL":        {Config{Issuer: "id.example.com", Audience: "a", TenantClaim: "t", PermissionsClaim: "p"}, false},
		"without claims":   {Config{Issuer: "https://id.example.com", Audience: "a"}, false},
	} {
		if err := c.cfg.Validate(); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPermissionsAreAListOrOneText(t *testing.T) {
	want := []webhook.Permission{webhook.PermissionAuditRead, webhook.PermissionPublish}
	for name, claim := range map[string]any{
		"a list": []any{"event_publish", "other", 5, "delivery_audit_read"}, "one text": "delivery_audit_read  other event_publish",
	} {
		got := permissionsIn(claim)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, claim := range map[string]any{"none": nil, "a number": 5.0, "an object": map[string]any{"admin": true}, "of others": "root"} {
		if got := permissionsIn(claim); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}
