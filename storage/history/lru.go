package history

import "container/list"

// lru keeps the values that were used last, up to a number of bytes. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	limit, used int64
	order       list.List // of *lruItem[K, V], the last used one in front
	items       map[K]*list.Element
}

type lruItem[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

func newLRU[K comparable, V any](limit int64) *lru[K, V] {
	return &lru[K, V]{limit: limit, items: make(map[K]*list.Element)}
}

func (c *lru[K, V]) find(key K) (V, bool) {
	e := c.items[key]
	if e == nil {
		var none V
		return none, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*lruItem[K, V]).value, true
}

func (c *lru[K, V]) put(key K, value V, bytes int64) {
	c.remove(key)
	if bytes > c.limit/2 {
		return // it would push everything else out
	}
	c.items[key] = c.order.PushFront(&lruItem[K, V]{key, value, bytes})
	for c.used += bytes; c.used > c.limit; {
		c.remove(c.order.Back().Value.(*lruItem[K, V]).key)
	}
}

func (c *lru[K, V]) remove(key K) {
	if e := c.items[key]; e != nil {
		c.used -= c.order.Remove(e).(*lruItem[K, V]).bytes
		delete(c.items, key)
	}
}
