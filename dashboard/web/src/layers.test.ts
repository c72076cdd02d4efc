import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

// Imports go down only.
const layers = ['frames', 'feed', 'state', 'views'];

function files(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(ts|svelte)$/.test(name) && !name.endsWith('.test.ts'))
    .map((name) => join(dir, name));
}

test('imports go down only', () => {
  const wrong: string[] = [];
  for (const [level, layer] of layers.entries()) {
    for (const file of files(join(import.meta.dirname, layer))) {
      const source = readFileSync(file, 'utf8');
      for (const [, path] of source.matchAll(/from '([^']+)'/g)) {
        const other = layers.findIndex((l) => path?.includes(`../${l}/`));
        if (other > level) wrong.push(`${file} imports ${path}`);
      }
      // What Svelte and the DOM offer to put markup or requests elsewhere.
      for (const banned of ['innerHTML', '{@html', 'insertAdjacentHTML', 'https://']) {
        if (source.includes(banned)) wrong.push(`${file} has ${banned}`);
      }
    }
  }
  expect(wrong).toEqual([]);
});
