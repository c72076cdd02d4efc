package device

// Limits of one schema.
const (
	MaxMetrics     = 256
	MaxSets        = 64
	MaxSchemaIDLen = 64
	MaxStreamIDLen = 64
)

// Set is a group of metrics that are sampled together.
type Set struct {
	// Num is the number that the hub gave to this set. Two sets of one device with the same metrics in the same
	// order have the same number, in whatever schema they stand. Zero until the hub has registered the set.
	Num uint32
	// Index is the number that the device uses in its rows, 1 to 65535, unique within the schema.
	Index uint16
	// Metrics are positions in Schema.Metrics, at least one, without repetition.
	Metrics []int
}

// Schema is what a device declares in one birth. A registered schema is immutable.
type Schema struct {
	// Num is the number that the hub gave to this schema. It is unique within the device, never reused, and zero
	// until the hub has registered the schema.
	Num uint32
	// ID is the opaque name that the device gave to the schema; the same content has the same ID.
	ID      string
	Metrics []Metric
	Sets    []Set
	// Commands are the names of the commands that the device takes.
	Commands []string
}

// Width returns how many values a row with the given Ref has, or zero if the schema has no such set or metric.
func (s *Schema) Width(r Ref) int {
	if i, ok := r.Single(); ok {
		if i < len(s.Metrics) {
			return 1
		}
		return 0
	}
	if i := r.Set(); i < len(s.Sets) {
		return len(s.Sets[i].Metrics)
	}
	return 0
}

// Column returns the metric of the i-th value of a row with the given Ref. Both must be valid for the schema.
func (s *Schema) Column(r Ref, i int) *Metric {
	if m, ok := r.Single(); ok {
		return &s.Metrics[m]
	}
	return &s.Metrics[s.Sets[r.Set()].Metrics[i]]
}

// Ref says which set or which single metric of a schema a row belongs to. Refs are positions in the schema, not the
// numbers that a device uses on the wire.
type Ref uint32

// SetRef refers to Schema.Sets[i].
func SetRef(i int) Ref { return Ref(i) << 1 }

// SingleRef refers to Schema.Metrics[i].
func SingleRef(i int) Ref { return Ref(i)<<1 | 1 }

// Single returns the position of the metric and true if the row holds a single metric.
func (r Ref) Single() (int, bool) { return int(r >> 1), r&1 == 1 }

// Set returns the position of the set. It is meaningful only if [Ref.Single] reports false.
func (r Ref) Set() int { return int(r >> 1) }
