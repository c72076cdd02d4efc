// What was built is what it should be.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';

const dist = join(import.meta.dirname, '../../dist');
const index = join(dist, 'index.html');

// Whoever opens the page for the first time, on a phone in a field, waits for this.
const mostJavaScript = 100_000;

test.skipIf(!existsSync(index) && process.env.CI === undefined)('the first view is small, and in one place', () => {
  const html = readFileSync(index, 'utf8');
  expect(html).not.toMatch(/<script>|<style|style="|(src|href)="(?!\.\/assets\/)/);
  const scripts = [...html.matchAll(/"\.\/assets\/([^"]+\.js)"/g)].map(([, name]) => name ?? '');
  const size = scripts.reduce(
    (sum, name) => sum + gzipSync(readFileSync(join(dist, 'assets', name)), { level: 9 }).length,
    0,
  );
  expect(scripts.length).toBeGreaterThan(0);
  expect(size).toBeLessThanOrEqual(mostJavaScript);
});
