//go:build reconciler

package autoscaler

import (
	"context"
	"errors"
	"net/http"
	"time"
	_ "unsafe" // for go:linkname

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	nv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	asconfig "knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/autoscaler/scaling"
	"knative.dev/serving/pkg/deployment"
	"knative.dev/serving/pkg/reconciler/autoscaling/config"
	"knative.dev/serving/pkg/reconciler/autoscaling/kpa"
	"knative.dev/serving/pkg/reconciler/autoscaling/kpa/resources"
)

// kpaScaler has the fields of Knative's kpa.scaler, in their order: the two are one struct to the linker.
type kpaScaler struct {
	listerFactory  func(schema.GroupVersionResource) (cache.GenericLister, error)
	dynamicClient  dynamic.Interface
	transport      http.RoundTripper
	activatorProbe func(*autoscalingv1alpha1.PodAutoscaler, http.RoundTripper) (bool, error)
	probeManager   interface {
		Offer(context.Context, string, interface{}, time.Duration, time.Duration, ...interface{}) bool
	}
	enqueueCB func(interface{}, time.Duration)
}

// kpaPodCounts has the fields of Knative's kpa.podCounts.
type kpaPodCounts struct{ want, ready, notReady, pending, terminating int }

//go:linkname scale knative.dev/serving/pkg/reconciler/autoscaling/kpa.(*scaler).scale
func scale(*kpaScaler, context.Context, *autoscalingv1alpha1.PodAutoscaler, *nv1alpha1.ServerlessService, int32) (int32, error)

//go:linkname computeStatus knative.dev/serving/pkg/reconciler/autoscaling/kpa.(*Reconciler).computeStatus
func computeStatus(*kpa.Reconciler, context.Context, *autoscalingv1alpha1.PodAutoscaler, kpaPodCounts, *zap.SugaredLogger)

//go:linkname computeNumActivators knative.dev/serving/pkg/reconciler/autoscaling/kpa.computeNumActivators
func computeNumActivators(int, *scaling.Decider) int32

type offered struct{ is bool }

func (o *offered) Offer(context.Context, string, interface{}, time.Duration, time.Duration, ...interface{}) bool {
	o.is = true
	return true
}

func reconciled(q question) (context.Context, *autoscalingv1alpha1.PodAutoscaler, error) {
	autoscaler, err := asconfig.NewConfigFromMap(q.Config)
	if err != nil {
		return nil, nil, err
	}
	ctx := config.ToContext(context.Background(), &config.Config{
		Autoscaler: autoscaler,
		Deployment: &deployment.Config{ProgressDeadline: deployment.ProgressDeadlineDefault},
	})
	pa := podAutoscaler(q)
	pa.Spec.ScaleTargetRef = corev1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}
	pa.Status.ServiceName = q.Scale.ServiceName
	if q.Scale.Active != "" {
		pa.Status.Conditions = append(pa.Status.Conditions, condition("Active", q.Scale.Active, q.Scale.ActiveFor))
	}
	if q.Scale.Initialized {
		pa.Status.Conditions = append(pa.Status.Conditions, condition("ScaleTargetInitialized", "True", 0))
	}
	return ctx, pa, nil
}

func condition(name, status string, since float64) apis.Condition {
	return apis.Condition{
		Type:               apis.ConditionType(name),
		Status:             corev1.ConditionStatus(status),
		LastTransitionTime: apis.VolatileTime{Inner: metav1.NewTime(time.Now().Add(-seconds(since)))},
	}
}

func answerScale(q question) any {
	ctx, pa, err := reconciled(q)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	sks := &nv1alpha1.ServerlessService{}
	sks.Spec.Mode = nv1alpha1.SKSOperationModeServe
	if q.Scale.Proxied {
		sks.Spec.Mode = nv1alpha1.SKSOperationModeProxy
		sks.Status.Conditions = duckv1.Conditions{condition("ActivatorEndpointsPopulated", "True", q.Scale.ProxiedFor)}
	}
	applied, again, offer := false, time.Duration(0), &offered{}
	// A scale that is to be applied is first looked up; that it was looked up is all that is asked here.
	noLister := errors.New("no lister")
	scaler := &kpaScaler{
		listerFactory: func(schema.GroupVersionResource) (cache.GenericLister, error) {
			applied = true
			return nil, noLister
		},
		activatorProbe: func(*autoscalingv1alpha1.PodAutoscaler, http.RoundTripper) (bool, error) {
			return q.Scale.Probed, nil
		},
		probeManager: offer,
		enqueueCB:    func(_ interface{}, after time.Duration) { again = after },
	}
	want, err := scale(scaler, ctx, pa, sks, q.Scale.Desired)
	if err != nil && !errors.Is(err, noLister) {
		return map[string]any{"error": err.Error()}
	}
	autoscaler := config.FromContext(ctx).Autoscaler
	return map[string]any{
		"want": want, "is_applied": applied, "again_ns": int64(again), "probes": offer.is,
		"activators": computeNumActivators(q.Scale.Ready, resources.MakeDecider(pa, autoscaler)),
	}
}

func answerStatus(q question) any {
	ctx, pa, err := reconciled(q)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	computeStatus(&kpa.Reconciler{}, ctx, pa, kpaPodCounts{want: q.Scale.Want, ready: q.Scale.Ready}, zap.NewNop().Sugar())
	active := pa.Status.GetCondition(autoscalingv1alpha1.PodAutoscalerConditionActive)
	if active == nil {
		active = &apis.Condition{}
	}
	return map[string]any{
		"active": active.Status, "reason": active.Reason, "message": active.Message,
		"is_initialized": pa.Status.IsScaleTargetInitialized(),
		"desired":        pa.Status.GetDesiredScale(), "actual": pa.Status.GetActualScale(),
	}
}
