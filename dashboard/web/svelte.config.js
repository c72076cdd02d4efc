// svelte-check and Vite read this.
export default {
  compilerOptions: { runes: true, css: 'external' },
};
