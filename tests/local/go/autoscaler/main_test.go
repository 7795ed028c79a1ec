// Command autoscaler answers questions about Knative's autoscaler with Knative's own code, for tests to compare with.
//
// It reads one JSON question a line from the file that QUESTIONS names and writes one JSON answer a line to the file
// that ANSWERS names. It is a test binary, built with `go test -c`, because only a test may run its code in virtual
// time (testing/synctest): each question starts at 2000-01-01T00:00:00Z, which is the edge of every bucket, and times
// in questions are seconds after that.
//
// What the reconciler does is asked of it only when it is built with `-tags reconciler`: that takes all of Kubernetes'
// client, and twice the time to build.
package autoscaler

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

type question struct {
	Kind        string            `json:"kind"`
	Spec        traceSpec         `json:"spec"`
	Ticks       []tick            `json:"ticks"`
	Window      windowSpec        `json:"window"`
	Ops         []op              `json:"ops"`
	Annotations map[string]string `json:"annotations"`
	Config      map[string]string `json:"config"`
	Concurrency int64             `json:"container_concurrency"`
	Unreachable bool              `json:"unreachable"`
	Scale       scaleInput        `json:"scale"`
	Text        string            `json:"text"`
}

type tick struct {
	T      float64 `json:"t"`
	Ready  int     `json:"ready"`
	Stable float64 `json:"stable"`
	Panic  float64 `json:"panic"`
	NoData bool    `json:"no_data"`
}

type op struct {
	Do    string  `json:"do"`
	T     float64 `json:"t"`
	Value float64 `json:"value"`
}

// scaleInput is what the reconciler finds, all times in seconds.
type scaleInput struct {
	Desired     int32   `json:"desired"`     // -1: not known
	Active      string  `json:"active"`      // True, False, Unknown, or "" where there is no condition
	ActiveFor   float64 `json:"active_for"`  // since the condition's last transition
	Initialized bool    `json:"initialized"` // ScaleTargetInitialized
	Proxied     bool    `json:"proxied"`     // the activator is in the path
	ProxiedFor  float64 `json:"proxied_for"` // for so long
	Probed      bool    `json:"probed"`      // a request through the service is answered by the activator
	Want        int     `json:"want"`
	Ready       int     `json:"ready"`
	ServiceName string  `json:"service_name"`
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// until lets virtual time pass to t seconds after start.
func until(start time.Time, t float64) time.Time {
	at := start.Add(seconds(t))
	if wait := time.Until(at); wait > 0 {
		time.Sleep(wait)
	}
	return at
}

func answer(q question) any {
	switch q.Kind {
	case "trace":
		return answerTrace(q)
	case "window":
		return answerWindow(q)
	case "meter":
		return answerMeter(q)
	case "maximum":
		return answerMaximum(q)
	case "annotations":
		return answerAnnotations(q)
	case "config":
		return answerConfig(q)
	case "parameters":
		return answerParameters(q)
	case "scale":
		return answerScale(q)
	case "status":
		return answerStatus(q)
	case "numbers":
		return answerNumbers(q)
	}
	return map[string]string{"error": "no such question: " + q.Kind}
}

func TestAnswer(t *testing.T) {
	in, err := os.Open(os.Getenv("QUESTIONS"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(os.Getenv("ANSWERS"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	writer := bufio.NewWriter(out)
	defer writer.Flush()
	encoder := json.NewEncoder(writer)
	encoder.SetEscapeHTML(false)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			t.Fatal(err)
		}
		var found any
		synctest.Test(t, func(*testing.T) { found = answer(q) })
		if err := encoder.Encode(found); err != nil {
			t.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}
