// Command h2spec runs all cases of h2spec against the server on a port of 127.0.0.1, several cases at a time.
// Each line of its output has a case's number, its result and its description.
package main

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

func main() {
	port := flag.Int("port", 0, "port of the server")
	path := flag.String("path", "/", "path of the requests")
	timeout := flag.Duration("timeout", 2*time.Second, "time for each answer of the server")
	parallel := flag.Int("parallel", 1, "number of cases that run at a time")
	flag.Parse()
	settings := &config.Config{
		Host: "127.0.0.1", Port: *port, Path: *path, Timeout: *timeout, MaxHeaderLen: 4000, Strict: true,
	}
	places := make(chan struct{}, *parallel)
	var running sync.WaitGroup
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		each(group, func(number string, one *spec.TestCase) {
			running.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				fmt.Printf("%s\t%s\t%s\n", number, result(settings, one), one.Desc)
			})
		})
	}
	running.Wait()
}

// each calls do for every case of a group and of the groups in it.
func each(group *spec.TestGroup, do func(string, *spec.TestCase)) {
	for index, one := range append(group.Tests, group.StrictTests...) {
		do(fmt.Sprintf("%s/%d", group.ID(), index+1), one)
	}
	for _, inner := range group.Groups {
		each(inner, do)
	}
}

// result runs a case: "passed", "skipped", or the expected and the actual events.
func result(settings *config.Config, one *spec.TestCase) string {
	connection, err := spec.Dial(settings)
	if err == nil {
		defer connection.Close()
		err = one.Run(settings, connection)
	}
	switch err {
	case nil:
		return "passed"
	case spec.ErrSkipped:
		return "skipped"
	}
	return "failed: " + strings.ReplaceAll(err.Error(), "\n", " | ")
}
