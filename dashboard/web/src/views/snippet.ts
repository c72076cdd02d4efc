/** Text to copy, of several that do the same in different places. */
export interface Snippet {
  key: string;
  /** The name of its tab. */
  label: string;
  /** What must be there first. */
  before: string;
  code: string;
}
