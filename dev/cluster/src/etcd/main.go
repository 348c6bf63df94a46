// The etcd server. Upstream's main package sits in a module that the module proxy cannot serve on its own,
// the server library it calls is an ordinary module.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
