// Where in the page one is. It stands in the fragment, so that the page works wherever it is mounted.

import { parseRange, type Range, rangeQuery } from './range';

export type Route =
  | { view: 'list' }
  | { view: 'add' }
  | { view: 'connection' }
  | { view: 'device'; id: string; range: Range }
  /** A one-time link: it must leave the address at once. */
  | { view: 'link'; secret: string };

export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#/, '');
  const link = /^link=([A-Za-z0-9_-]+)$/.exec(text)?.[1];
  if (link !== undefined) return { view: 'link', secret: link };
  const [path = '', query = ''] = text.split('?', 2);
  if (path === '/add') return { view: 'add' };
  if (path === '/connection') return { view: 'connection' };
  const id = /^\/devices\/([a-z0-9][a-z0-9._-]{0,63})$/.exec(path)?.[1];
  if (id !== undefined) return { view: 'device', id, range: parseRange(new URLSearchParams(query)) };
  return { view: 'list' };
}

export function routeHash(route: Exclude<Route, { view: 'link' }>): string {
  switch (route.view) {
    case 'list':
      return '#/';
    case 'add':
      return '#/add';
    case 'connection':
      return '#/connection';
    case 'device':
      return `#/devices/${route.id}?${rangeQuery(route.range)}`;
  }
}

/** The address of a device's page in the usual window. */
export function deviceHash(id: string): string {
  return `#/devices/${id}`;
}
