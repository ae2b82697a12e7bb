package sqlitestore_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/sqlitestore"
	"github.com/hookline/hookline/pkg/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) storetest.Store {
	t.Helper()
	s, err := sqlitestore.Open(context.Background(), "sqlite://"+filepath.Join(t.TempDir(), "hookline test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSQLiteStore(t *testing.T) { storetest.Run(t, open) }

func TestSQLiteStoreInVirtualTime(t *testing.T) { storetest.RunIn(t, synctest.Test, open) }
