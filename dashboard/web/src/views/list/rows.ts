// The rows that are in the document: a few of many.

import {
  defaultRangeExtractor,
  observeWindowOffset,
  observeWindowRect,
  type Range,
  Virtualizer,
  windowScroll,
} from '@tanstack/virtual-core';

export interface Rows {
  items: readonly { index: number; start: number }[];
  height: number;
}

export interface RowsOptions {
  count: number;
  rowHeight: number;
  /** Where the list begins on the page. */
  margin: number;
  /** The row that has the focus stays, wherever one scrolls; -1 for none. */
  kept: number;
}

/** Scrolls with the window. changed is called with what to render now. */
export function windowRows(
  first: RowsOptions,
  changed: (rows: Rows) => void,
): { set(o: RowsOptions): void; stop(): void } {
  const options = (o: RowsOptions) => ({
    count: o.count,
    estimateSize: () => o.rowHeight,
    scrollMargin: o.margin,
    overscan: 6,
    getScrollElement: () => window,
    observeElementRect: observeWindowRect,
    observeElementOffset: observeWindowOffset,
    scrollToFn: windowScroll,
    initialOffset: () => window.scrollY,
    rangeExtractor: (range: Range) => {
      const list = defaultRangeExtractor(range);
      return o.kept < 0 || o.kept >= o.count || list.includes(o.kept) ? list : [...list, o.kept].sort((a, b) => a - b);
    },
    onChange: () => publish(),
  });
  const v = new Virtualizer<Window, HTMLElement>(options(first));
  let height = first.rowHeight;
  const publish = () => {
    const margin = v.options.scrollMargin;
    changed({
      items: v.getVirtualItems().map((item) => ({ index: item.index, start: item.start - margin })),
      height: v.getTotalSize(),
    });
  };
  const stop = v._didMount();
  v._willUpdate();
  publish();
  return {
    set(o) {
      v.setOptions(options(o));
      if (o.rowHeight !== height) {
        height = o.rowHeight;
        v.measure();
      }
      v._willUpdate();
      publish();
    },
    stop,
  };
}
