import './node20.ts';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

const dist = join(import.meta.dirname, '../dist');

// The folder holds a placeholder for builds without Node, which is in the repository and stays.
function emptyDist(): Plugin {
  return {
    name: 'empty-dist',
    apply: 'build',
    buildStart() {
      for (const name of readdirSync(dist)) {
        if (name !== 'placeholder.html') rmSync(join(dist, name), { recursive: true });
      }
    },
  };
}

export default defineConfig({
  base: './',
  plugins: [svelte(), emptyDist()],
  build: {
    outDir: dist,
    emptyOutDir: false,
    target: 'es2022',
    assetsInlineLimit: 0, // the policy of the page has no data: addresses
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node', css: false },
});
