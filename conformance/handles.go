package conformance

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/backend"
)

const visible = "once Create, Put or Delete has returned, every later Get and List through any handle sees its effect"

// readAfterWrite also reads each key before there is an object, because a store must
// not cache that answer.
func readAfterWrite(ctx context.Context, e *env) error {
	for i := range 10 {
		key := fmt.Sprint("object-", i)
		if err := wantAbsent(ctx, e.b, key, "Get returns ErrNotExist if there is no such object"); err != nil {
			return err
		}
		for _, s := range []backend.Store{e.a, e.b} {
			if _, err := s.Create(ctx, key, []byte("created")); err != nil {
				return err
			}
			if err := e.bothRead(ctx, key, "created"); err != nil {
				return err
			}
			if _, err := s.Put(ctx, key, []byte("replaced")); err != nil {
				return err
			}
			if err := e.bothRead(ctx, key, "replaced"); err != nil {
				return err
			}
			if err := s.Delete(ctx, key); err != nil {
				return err
			}
			for _, reader := range []backend.Store{e.a, e.b} {
				if err := wantAbsent(ctx, reader, key, visible); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (e *env) bothRead(ctx context.Context, key, want string) error {
	for _, s := range []backend.Store{e.a, e.b} {
		if err := wantContent(ctx, s, key, []byte(want), visible); err != nil {
			return err
		}
	}
	return nil
}

func listAfterWrite(ctx context.Context, e *env) error {
	var want []string
	for i := range 10 {
		key := fmt.Sprint("object-", i)
		want = append(want, key)
		if _, err := e.a.Create(ctx, key, []byte("created")); err != nil {
			return err
		}
		if err := wantListed(ctx, e.b, "object-", "", want, visible); err != nil {
			return err
		}
	}
	for len(want) > 0 {
		if err := e.a.Delete(ctx, want[0]); err != nil {
			return err
		}
		want = want[1:]
		if err := wantListed(ctx, e.b, "object-", "", want, visible); err != nil {
			return err
		}
	}
	return nil
}

// namespaces opens two namespaces. The name of one is the beginning of the other's.
func namespaces(ctx context.Context, e *env) error {
	const contract = "a Store holds objects in one namespace"
	longer, err := e.handle(ctx, e.namespace+"-2")
	if err != nil {
		return err
	}
	if err := e.populate(ctx, "both", "one"); err != nil {
		return err
	}
	if err := wantListed(ctx, longer, "", "", nil, contract); err != nil {
		return err
	}
	if _, err := longer.Create(ctx, "both", []byte("another")); err != nil {
		return violation(contract, "Create of a key that exists in another one returned %q", err)
	}
	if err := wantListed(ctx, e.a, "", "", []string{"both", "one"}, contract); err != nil {
		return err
	}
	if err := e.a.Delete(ctx, "both", "one"); err != nil {
		return err
	}
	return wantContent(ctx, longer, "both", []byte("another"), contract)
}

func closed(ctx context.Context, e *env) error {
	if err := e.populate(ctx, "old"); err != nil {
		return err
	}
	if err := e.a.Close(); err != nil {
		return violation("Close releases what the handle holds", "error %q", err)
	}
	for _, v := range verbs {
		for _, key := range []string{"old", "new"} {
			err := wantKind(v.call(ctx, e.a, key), backend.ErrClosed, "after Close every method returns ErrClosed", v.name)
			if err != nil {
				return err
			}
		}
	}
	if err := e.a.Close(); err != nil {
		return violation("a second Close returns nil", "error %q", err)
	}
	return e.wantOnlyOld(ctx, "after Close a method does nothing")
}

// wantOnlyOld checks that the object that populate put at "old" is the only one.
func (e *env) wantOnlyOld(ctx context.Context, contract string) error {
	if err := wantListed(ctx, e.b, "", "", []string{"old"}, contract); err != nil {
		return err
	}
	return wantContent(ctx, e.b, "old", []byte("old"), contract)
}

func closeOther(ctx context.Context, e *env) error {
	if err := e.a.Close(); err != nil {
		return err
	}
	again, err := e.handle(ctx, e.namespace)
	if err != nil {
		return err
	}
	for _, s := range []backend.Store{e.b, again} {
		for _, v := range verbs {
			if err := v.call(ctx, s, "object"); err != nil {
				return violation("Close releases what this handle holds, and nothing of others", "%s through another returned %q", v.name, err)
			}
		}
	}
	return nil
}
