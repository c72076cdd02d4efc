import './node20.ts';
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

const dist = join(import.meta.dirname, '../dist');
const pages = {
  index: join(import.meta.dirname, 'index.html'),
  welcome: join(import.meta.dirname, 'welcome/index.html'),
};

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

// The hub serves the stock client of Socket.IO at /socket.io/, as servers of it do.
function socketIO(): Plugin {
  return {
    name: 'socket-io',
    apply: 'build',
    closeBundle() {
      const to = join(dist, 'socket.io');
      mkdirSync(to, { recursive: true });
      for (const name of ['socket.io.js', 'socket.io.min.js']) {
        cpSync(join(import.meta.dirname, 'node_modules/socket.io-client/dist', name), join(to, name));
      }
    },
  };
}

export default defineConfig({
  base: './',
  plugins: [svelte(), emptyDist(), socketIO()],
  build: {
    outDir: dist,
    emptyOutDir: false,
    rolldownOptions: { input: pages },
    target: 'es2022',
    assetsInlineLimit: 0, // the policy of the page has no data: addresses
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node', css: false },
});
