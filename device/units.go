package device

import "math"

// units is the table. It is never changed. The stored units ppb and deg/s are not in RFC 8428 or RFC 8798 but ours.
//
// Where a symbol stands for more than one quantity (mm, in, %), people mean the stored unit with that name, or else the
// first entry; % stands for percent.
var units = []Unit{
	{
		Quantity: "temperature", Name: "Cel", UCUM: "Cel", Class: "temperature", Kind: Gauge, Step: 0.1, Lo: -100, Hi: 200,
		Display: []Display{same("°C"), {"°F", 9, 5, 32}, {"K", 1, 1, 273.15}},
	},
	{
		Quantity: "humidity", Name: "%RH", UCUM: "%", Class: "humidity", Kind: Gauge, Step: 0.1, Lo: 0, Hi: 100,
		Display: []Display{same("%")},
	},
	{
		Quantity: "pressure", Name: "Pa", UCUM: "Pa", Class: "atmospheric_pressure", Kind: Gauge, Step: 10, Lo: 30000, Hi: 110000,
		Display: []Display{
			{"hPa", 1, 100, 0}, same("Pa"), {"kPa", 1, 1000, 0}, {"bar", 1, 100000, 0}, {"mmHg", 1, 133.322387415, 0},
			{"inHg", 1, 3386.389, 0}, {"psi", 1, 6894.757293168, 0},
		},
	},
	{
		Quantity: "illuminance", Name: "lx", UCUM: "lx", Class: "illuminance", Kind: Gauge, Step: 1, Lo: 0, Hi: 200000,
		Display: []Display{same("lx"), {"klx", 1, 1000, 0}},
	},
	{
		Quantity: "irradiance", Name: "W/m2", UCUM: "W/m2", Class: "irradiance", Kind: Gauge, Step: 1, Lo: 0, Hi: 2000,
		Display: []Display{same("W/m²")},
	},
	{
		Quantity: "carbon dioxide", Name: "ppm", UCUM: "[ppm]", Class: "carbon_dioxide", Kind: Gauge, Step: 1, Lo: 0, Hi: 50000,
		Display: []Display{same("ppm")},
	},
	{
		Quantity: "volatile organic compounds", Name: "ppb", UCUM: "[ppb]", Class: "volatile_organic_compounds_parts", Kind: Gauge,
		Step: 1, Lo: 0, Hi: 100000, Display: []Display{same("ppb")},
	},
	{
		// Which particles (pm1, pm25, pm10) the unit does not say: Metric.Class does.
		Quantity: "particles", Name: "ug/m3", UCUM: "ug/m3", Kind: Gauge, Step: 1, Lo: 0, Hi: 10000,
		Display: []Display{same("µg/m³"), {"mg/m³", 1, 1000, 0}},
	},
	{
		Quantity: "voltage", Name: "V", UCUM: "V", Class: "voltage", Kind: Gauge, Step: 0.01, Lo: -1000, Hi: 1000,
		Display: []Display{same("V"), {"mV", 1000, 1, 0}, {"kV", 1, 1000, 0}},
	},
	{
		Quantity: "current", Name: "A", UCUM: "A", Class: "current", Kind: Gauge, Step: 0.001, Lo: -1000, Hi: 1000,
		Display: []Display{same("A"), {"mA", 1000, 1, 0}},
	},
	{
		Quantity: "power", Name: "W", UCUM: "W", Class: "power", Kind: Gauge, Step: 0.1, Lo: -1e6, Hi: 1e6,
		Display: []Display{same("W"), {"mW", 1000, 1, 0}, {"kW", 1, 1000, 0}},
	},
	{
		// Not joules, which are SenML's own unit: counters of joules frighten people.
		Quantity: "energy", Name: "kWh", UCUM: "kW.h", Class: "energy", Kind: Counter, Step: 0.01, Lo: 0, Hi: math.NaN(),
		Display: []Display{same("kWh"), {"Wh", 1000, 1, 0}, {"MWh", 1, 1000, 0}, {"MJ", 18, 5, 0}, {"J", 3.6e6, 1, 0}},
	},
	{
		Quantity: "frequency", Name: "Hz", UCUM: "Hz", Class: "frequency", Kind: Gauge, Step: 0.01, Lo: 0, Hi: math.NaN(),
		Display: []Display{same("Hz"), {"kHz", 1, 1000, 0}, {"MHz", 1, 1e6, 0}, {"GHz", 1, 1e9, 0}, {"rpm", 60, 1, 0}},
	},
	{
		Quantity: "resistance", Name: "Ohm", UCUM: "Ohm", Kind: Gauge, Step: 1, Lo: 0, Hi: math.NaN(),
		Display: []Display{same("Ω"), {"kΩ", 1, 1000, 0}, {"MΩ", 1, 1e6, 0}},
	},
	{
		Quantity: "acceleration", Name: "m/s2", UCUM: "m/s2", Kind: Gauge, Step: 0.01, Lo: -2000, Hi: 2000,
		Display: []Display{same("m/s²"), {"gₙ", 1, 9.80665, 0}},
	},
	{
		Quantity: "angular rate", Name: "deg/s", UCUM: "deg/s", Kind: Gauge, Step: 0.01, Lo: -4000, Hi: 4000,
		Display: []Display{same("°/s")},
	},
	{
		Quantity: "magnetic field", Name: "T", UCUM: "T", Kind: Gauge, Step: 1e-7, Lo: -10, Hi: 10,
		Display: []Display{{"µT", 1e6, 1, 0}, {"mT", 1000, 1, 0}, same("T")},
	},
	{
		Quantity: "distance", Name: "m", UCUM: "m", Class: "distance", Kind: Gauge, Step: 0.001, Lo: math.NaN(), Hi: math.NaN(),
		Display: []Display{
			same("m"), {"mm", 1000, 1, 0}, {"cm", 100, 1, 0}, {"km", 1, 1000, 0}, {"in", 10000, 254, 0}, {"ft", 10000, 3048, 0},
		},
	},
	{
		Quantity: "mass", Name: "kg", UCUM: "kg", Class: "weight", Kind: Gauge, Step: 0.001, Lo: math.NaN(), Hi: math.NaN(),
		Display: []Display{same("kg"), {"g", 1000, 1, 0}, {"t", 1, 1000, 0}, {"lb", 1, 0.45359237, 0}},
	},
	{
		Quantity: "volume", Name: "m3", UCUM: "m3", Class: "volume", Kind: Counter, Step: 0.001, Lo: 0, Hi: math.NaN(),
		Display: []Display{same("m³"), {"L", 1000, 1, 0}},
	},
	{
		Quantity: "speed", Name: "m/s", UCUM: "m/s", Class: "speed", Kind: Gauge, Step: 0.1, Lo: math.NaN(), Hi: math.NaN(),
		Display: []Display{same("m/s"), {"km/h", 18, 5, 0}, {"mph", 3600, 1609.344, 0}, {"kn", 900, 463, 0}},
	},
	{
		Quantity: "direction", Name: "deg", UCUM: "deg", Class: "wind_direction", Kind: Gauge, Step: 1, Lo: -360, Hi: 360,
		Display: []Display{same("°")},
	},
	{
		Quantity: "rain", Name: "mm", UCUM: "mm", Class: "precipitation", Kind: Counter, Step: 0.1, Lo: 0, Hi: math.NaN(),
		Display: []Display{same("mm"), {"in", 10, 254, 0}},
	},
	{
		Quantity: "rain rate", Name: "mm/h", UCUM: "mm/h", Class: "precipitation_intensity", Kind: Gauge, Step: 0.1, Lo: 0, Hi: 2000,
		Display: []Display{same("mm/h"), {"in/h", 10, 254, 0}},
	},
	{
		Quantity: "battery", Name: "%EL", UCUM: "%", Class: "battery", Kind: Gauge, Step: 1, Lo: 0, Hi: 100,
		Display: []Display{same("%")},
	},
	{
		Quantity: "signal", Name: "dBm", UCUM: "dB[mW]", Class: "signal_strength", Kind: Gauge, Step: 1, Lo: -200, Hi: 100,
		Display: []Display{same("dBm")},
	},
	{
		Quantity: "percent", Name: "/100", UCUM: "%", Kind: Gauge, Step: 0.1, Lo: math.NaN(), Hi: math.NaN(),
		Display: []Display{same("%"), {"‰", 10, 1, 0}},
	},
	{
		Quantity: "acidity", Name: "pH", UCUM: "[pH]", Class: "ph", Kind: Gauge, Step: 0.01, Lo: 0, Hi: 14,
		Display: []Display{same("pH")},
	},
	{
		Quantity: "state", Name: "/", UCUM: "1", Kind: State, Step: 1, Lo: math.NaN(), Hi: math.NaN(),
		Display: []Display{same("")},
	},
	{
		Quantity: "count", Name: "count", UCUM: "1", Kind: Counter, Step: 1, Lo: 0, Hi: math.NaN(),
		Display: []Display{same("")},
	},
	{
		Quantity: "duration", Name: "s", UCUM: "s", Class: "duration", Kind: Gauge, Step: 1, Lo: math.NaN(), Hi: math.NaN(),
		Display: []Display{same("s"), {"ms", 1000, 1, 0}, {"min", 1, 60, 0}, {"h", 1, 3600, 0}, {"d", 1, 86400, 0}},
	},
	{
		Quantity: "data size", Name: "B", UCUM: "By", Class: "data_size", Kind: Gauge, Step: 1, Lo: 0, Hi: math.NaN(),
		Display: []Display{
			same("B"), {"KiB", 1, 1 << 10, 0}, {"MiB", 1, 1 << 20, 0}, {"GiB", 1, 1 << 30, 0}, {"kB", 1, 1e3, 0},
			{"MB", 1, 1e6, 0}, {"GB", 1, 1e9, 0},
		},
	},
	{
		Quantity: "data rate", Name: "bit/s", UCUM: "bit/s", Class: "data_rate", Kind: Gauge, Step: 1, Lo: 0, Hi: math.NaN(),
		Display: []Display{same("bit/s"), {"kbit/s", 1, 1e3, 0}, {"Mbit/s", 1, 1e6, 0}},
	},
}

// spellings are other ways in which people write a symbol of the table.
var spellings = map[string]string{
	"℃": "°C", "degC": "°C", "ºC": "°C", "℉": "°F", "degF": "°F", "ºF": "°F", "[degF]": "°F",
	"mbar": "hPa", "mm[Hg]": "mmHg", "lux": "lx",
	"µg/m3": "µg/m³", "ug/m³": "µg/m³", "μg/m³": "µg/m³", "μg/m3": "µg/m³", "μT": "µT", "uT": "µT", // µ and the letter mu
	"ohm": "Ohm", "Ohms": "Ohm", "l": "L", "liter": "L", "litre": "L", "m^3": "m³", "m/s^2": "m/s²", "W/m^2": "W/m²",
	"kmh": "km/h", "g0": "gₙ", "sec": "s", "°/sec": "°/s", "dps": "°/s", "percent": "%",
}
