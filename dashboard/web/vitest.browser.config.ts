import './node20.ts';
import { defineConfig } from 'vitest/config';

// One hub and one browser at a time: the machine may be small, and busy.
export default defineConfig({
  test: {
    include: ['browser/**/*.test.ts'],
    environment: 'node',
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
