"""The warm floor: raises a live revision's min-scale before the demand comes, and lowers it after.

For InferenceServices that ask for it (`glowplug.dev/warm-floor: "true"`). The same controller runs against the local
machine and against a cluster; it patches the annotation `autoscaling.knative.dev/min-scale` of Revisions that exist and
so never makes a new one. It writes nothing to an InferenceService: KServe copies its annotations into the revision's
template, and a change of it is a new revision. What it has learned is in a ConfigMap `<name>-warm-floor`.

What it may do on a cluster (RBAC):

| API group | resources | verbs |
| --- | --- | --- |
| serving.kserve.io | inferenceservices | get, list, watch |
| serving.knative.dev | revisions | list, patch |
| core | pods | list |
| core | configmaps | get, create, update |
| core | events | create |
| core | namespaces | list, watch |
| coordination.k8s.io | leases | get, create, update (in the lease's namespace) |
| apiextensions.k8s.io | customresourcedefinitions | list, watch |
"""
