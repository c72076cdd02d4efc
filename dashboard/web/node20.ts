// Vitest 5 prints failures with Map.groupBy, which Node has from 21 on. Everything else in it works on Node 20.

interface Grouping {
  groupBy?: <K, T>(items: Iterable<T>, key: (item: T, index: number) => K) => Map<K, T[]>;
}

(Map as Grouping).groupBy ??= (items, key) => {
  const groups = new Map();
  let i = 0;
  for (const item of items) {
    const k = key(item, i++);
    const group = groups.get(k);
    if (group === undefined) groups.set(k, [item]);
    else group.push(item);
  }
  return groups;
};
