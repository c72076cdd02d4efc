package alarm_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/hub/alarm"
)

func TestAlarmsAreCalledAtTheirTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := alarm.New()
		random := rand.New(rand.NewPCG(1, 2))
		type owner struct {
			alarm.Alarm
			at time.Duration // zero if it is stopped
		}
		var mu sync.Mutex // guards all of it
		owners := make([]owner, 500)
		calls := 0
		for i := range owners {
			o := &owners[i]
			o.Init(c, func() {
				mu.Lock()
				defer mu.Unlock()
				if now := c.Now(); o.at == 0 || now < o.at || now > o.at+time.Millisecond {
					t.Errorf("alarm %d is called at %s, want %s", i, now, o.at)
				}
				o.at = 0
				if calls++; calls%3 == 0 {
					o.at = c.Now() + time.Duration(random.IntN(3000))*time.Millisecond + 1
					o.Set(o.at)
				}
			})
		}
		for range 5000 {
			mu.Lock()
			o := &owners[random.IntN(len(owners))]
			switch random.IntN(4) {
			case 0:
				o.Stop()
				o.at = 0
			default:
				o.at = c.Now() + time.Duration(random.IntN(3000))*time.Millisecond + 1
				o.Set(o.at)
			}
			pause := time.Duration(random.IntN(20)) * time.Millisecond
			mu.Unlock()
			<-time.After(pause)
			synctest.Wait()
		}
		<-time.After(time.Minute)
		synctest.Wait()
		for i := range owners {
			if owners[i].at != 0 {
				t.Errorf("alarm %d was to be called at %s", i, owners[i].at)
			}
		}
		if calls < 1000 {
			t.Errorf("there were %d calls", calls)
		}
	})
}

func TestAlarmsOfOneMomentAreCalledByOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := alarm.New()
		var alarms [100]alarm.Alarm
		var inside, calls int // the race detector would tell of two at a time
		for i := range alarms {
			alarms[i].Init(c, func() {
				if inside++; inside > 1 {
					t.Error("two are called at a time")
				}
				calls++
				inside--
			})
			alarms[i].Set(time.Second)
		}
		<-time.After(time.Second)
		synctest.Wait()
		if calls != len(alarms) {
			t.Errorf("%d were called", calls)
		}
	})
}

func TestAnAlarmMayBeSetToThePresentAndThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := alarm.New()
		var first, second alarm.Alarm
		var log []string
		first.Init(c, func() {
			if log = append(log, "first"); len(log) < 5 {
				first.Set(c.Now())
			}
		})
		second.Init(c, func() { log = append(log, "second") })
		<-time.After(time.Second)
		first.Set(0)
		second.Set(-1)
		<-time.After(time.Second)
		synctest.Wait()
		slices.Sort(log)
		if got := fmt.Sprint(log); got != "[first first first first second]" {
			t.Errorf("%s", got)
		}
		new(alarm.Alarm).Stop()
		first.Stop()
	})
}

// TestAlarmsUnderLoad sets and stops alarms from many goroutines while they are called, until a thousand were.
func TestAlarmsUnderLoad(t *testing.T) {
	c := alarm.New()
	var called atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			var alarms [50]alarm.Alarm
			for i := range alarms {
				alarms[i].Init(c, func() { called.Add(1) })
			}
			for n := 0; n < 2000 || called.Load() < 1000; n++ {
				runtime.Gosched() // the calls need a processor too
				a := &alarms[rand.IntN(len(alarms))]
				if rand.IntN(3) == 0 {
					a.Stop()
				} else {
					a.Set(c.Now() + time.Duration(rand.IntN(200))*time.Microsecond)
				}
			}
			for i := range alarms {
				alarms[i].Stop()
			}
		})
	}
	all.Wait()
	last := make(chan struct{})
	var a alarm.Alarm
	a.Init(c, func() { close(last) })
	a.Set(c.Now())
	<-last
}

// BenchmarkMoments calls 400 alarms at a time, as 10,000 connections need it every second, beside as many timers of the runtime.
func BenchmarkMoments(b *testing.B) {
	const n = 400
	// It waits most of the time: what counts is how long the process runs.
	run := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	report := func(b *testing.B, began time.Duration) {
		b.ReportMetric(float64((run()-began).Nanoseconds())/float64(b.N)/n, "cpu-ns/alarm")
	}
	b.Run("alarms", func(b *testing.B) {
		c := alarm.New()
		var alarms [n]alarm.Alarm
		var called sync.WaitGroup
		for i := range alarms {
			alarms[i].Init(c, called.Done)
		}
		defer report(b, run())
		for b.Loop() {
			called.Add(n)
			at := c.Now() + time.Millisecond
			for i := range alarms {
				alarms[i].Set(at)
			}
			called.Wait()
		}
	})
	b.Run("timers", func(b *testing.B) {
		var timers [n]*time.Timer
		var called sync.WaitGroup
		for i := range timers {
			timers[i] = time.AfterFunc(time.Hour, called.Done)
		}
		defer report(b, run())
		for b.Loop() {
			called.Add(n)
			for i := range timers {
				timers[i].Reset(time.Millisecond)
			}
			called.Wait()
		}
	})
}
