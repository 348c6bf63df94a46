// cert-manager in one process: the controllers behind CA, self-signed and Vault issuers, an approver that lets their
// requests through, and the CA injector. Upstream's main packages are modules of their own that are not published,
// so this calls the published packages they call. There is no ACME, no Venafi and no validating webhook.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/stdr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cert-manager/cert-manager/pkg/api"
	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	meta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	// Each of these registers one controller, or one kind of issuer.
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/vault"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
)

func main() {
	// A set of its own: a library below registers --kubeconfig in the global one.
	flags := flag.NewFlagSet("cert-manager", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "file to reach the API server with")
	namespace := flags.String("cluster-resource-namespace", "cert-manager", "where the Secrets of ClusterIssuers are")
	_ = flags.Parse(os.Args[1:])
	ctrl.SetLogger(stdr.New(log.Default()))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	group, ctx := errgroup.WithContext(ctx)
	if err := startControllers(ctx, group, *kubeconfig, *namespace); err != nil {
		log.Fatalf("controllers: %v", err)
	}
	manager, err := newManager(*kubeconfig)
	if err != nil {
		log.Fatalf("manager: %v", err)
	}
	if err := addInjector(ctx, manager); err != nil {
		log.Fatalf("CA injector: %v", err)
	}
	if err := addApprover(manager); err != nil {
		log.Fatalf("approver: %v", err)
	}
	group.Go(func() error { return manager.Start(ctx) })
	log.Printf("%d controllers, the CA injector and the approver run", len(controller.Known()))
	if err := group.Wait(); err != nil {
		log.Fatal(err)
	}
}

// startControllers runs every controller whose package is imported above.
func startControllers(ctx context.Context, group *errgroup.Group, kubeconfig, namespace string) error {
	options := controller.ContextOptions{Kubeconfig: kubeconfig, KubernetesAPIQPS: 50, KubernetesAPIBurst: 100}
	options.ClusterResourceNamespace = namespace
	// Upstream's own defaults: a failed issuance is tried again after an hour. Tests meet what users meet.
	options.CertificateRequestMinimumBackoffDuration = time.Hour
	options.CertificateRequestMaximumBackoffDuration = 32 * time.Hour
	factory, err := controller.NewContextFactory(ctx, options)
	if err != nil {
		return err
	}
	for _, construct := range controller.Known() {
		c, err := construct(factory)
		if err != nil {
			return err
		}
		group.Go(func() error { return c.Run(5, ctx) })
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	return nil
}

func newManager(kubeconfig string) (manager.Manager, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	types := runtime.NewSchemeBuilder(
		api.AddToScheme, kubernetes.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme)
	if err := types.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config.UserAgent = "cert-manager-cainjector/dev" // the part before the slash is the field manager
	return ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme,
		Metrics: server.Options{BindAddress: "0"},
		// Secrets are watched by their metadata and read one by one, so their content is not cached.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{new(corev1.Secret)}}},
	})
}

// addInjector fills in caBundle wherever a webhook configuration, API service or CRD asks for it by annotation.
func addInjector(ctx context.Context, manager manager.Manager) error {
	return cainjector.RegisterAllInjectors(ctx, manager, cainjector.SetupOptions{
		EnableCertificatesDataSource: true,
		EnabledReconcilersFor: map[string]bool{
			cainjector.MutatingWebhookConfigurationName:   true,
			cainjector.ValidatingWebhookConfigurationName: true,
			cainjector.APIServiceName:                     true,
			cainjector.CustomResourceDefinitionName:       true,
		},
	})
}

// testApproves is the label of namespaces whose requests a test approves, or denies, as a policy would.
const testApproves = "pgrekey.dev/test-approves"

// addApprover approves every request, as cert-manager's own approver does, but for those that a test decides about.
func addApprover(manager manager.Manager) error {
	c := manager.GetClient()
	approve := func(ctx context.Context, asked reconcile.Request) (reconcile.Result, error) {
		var done reconcile.Result
		var request certmanager.CertificateRequest
		if err := c.Get(ctx, asked.NamespacedName, &request); err != nil {
			return done, client.IgnoreNotFound(err)
		}
		if apiutil.CertificateRequestIsApproved(&request) || apiutil.CertificateRequestIsDenied(&request) {
			return done, nil
		}
		var namespace corev1.Namespace
		if err := c.Get(ctx, client.ObjectKey{Name: request.Namespace}, &namespace); err != nil {
			return done, client.IgnoreNotFound(err)
		}
		if _, ok := namespace.Labels[testApproves]; ok {
			return done, nil
		}
		apiutil.SetCertificateRequestCondition(&request, certmanager.CertificateRequestConditionApproved,
			meta.ConditionTrue, "cert-manager.io", "Certificate request has been approved by cert-manager.io")
		return done, c.Status().Update(ctx, &request)
	}
	return ctrl.NewControllerManagedBy(manager).Named("approver").
		For(&certmanager.CertificateRequest{}).Complete(reconcile.Func(approve))
}
