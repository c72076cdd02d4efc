import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

// Which layers a layer may import. The feed is for other programs too, so it knows of the frames and of nothing else.
const layers: Record<string, string[]> = {
  frames: [],
  feed: ['frames'],
  api: ['frames'],
  state: ['frames', 'feed', 'api'],
  views: ['frames', 'feed', 'api', 'state'],
  welcome: ['frames', 'feed', 'api', 'state'],
};

function files(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(ts|svelte)$/.test(name) && !name.endsWith('.test.ts'))
    .map((name) => join(dir, name));
}

test('imports go down only', () => {
  const wrong: string[] = [];
  for (const [layer, below] of Object.entries(layers)) {
    for (const file of files(join(import.meta.dirname, layer))) {
      const source = readFileSync(file, 'utf8');
      for (const [, path] of source.matchAll(/from '([^']+)'/g)) {
        const other = Object.keys(layers).find((l) => l !== layer && path?.includes(`../${l}/`));
        if (other !== undefined && !below.includes(other)) wrong.push(`${file} imports ${path}`);
      }
      // What Svelte and the DOM offer to put markup or requests elsewhere, and addresses that are not the hub's own.
      for (const banned of [/innerHTML/, /{@html/, /insertAdjacentHTML/, /https:\/\/(?!\$\{)/]) {
        if (banned.test(source)) wrong.push(`${file} has ${banned}`);
      }
    }
  }
  expect(wrong).toEqual([]);
});
