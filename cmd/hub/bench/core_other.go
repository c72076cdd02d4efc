//go:build !linux

package bench

import "errors"

func onCore(int, func() error) error {
	return errors.New("this measurement chooses the cores of its processes: run it on Linux")
}
