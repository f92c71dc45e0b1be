#!/usr/bin/env bash
# Starts a cluster, runs real pods before your eyes, and leaves nothing behind.
# Usage: tests/demo.sh path/to/coracle
set -euo pipefail

coracle=$1
scratch=$(mktemp -d)
cluster=
cleanup() {
  [ -z "$cluster" ] || { kill "$cluster" 2>/dev/null && wait "$cluster" 2>/dev/null; } || true
  rm -rf "$scratch"
}
trap cleanup EXIT

bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '$ %s\n' "$*"; "$@"; }
# Waits, with a deadline, until a pod's log has a text.
until_logged() {
  grep -m1 -qF "$2" < <(timeout 20 kubectl logs -f "$1" -n demo)
}

if ! command -v kubectl >/dev/null; then
  say "kubectl is not on this machine, so this is the short demo: one program as a pod"
  run "$coracle" run -e GREETING="Good morning" coracle.dev/hello:v1 -- Coracle
  say "for the whole demo, install kubectl 1.32 (https://kubernetes.io/docs/tasks/tools) and run it again"
  exit 0
fi

say "a cluster of three nodes, in memory"
printf '$ coracle up --nodes 3 --ephemeral\n'
"$coracle" up --nodes 3 --ephemeral --listen 127.0.0.1:0 --kubeconfig "$scratch/kubeconfig" >"$scratch/out" &
cluster=$!
timeout 60 sh -c "until grep -q '^ready ' '$scratch/out'; do kill -0 $cluster || exit 1; sleep 0.02; done"
cat "$scratch/out"
export KUBECONFIG=$scratch/kubeconfig HOME=$scratch
run kubectl get nodes

say "configuration, a secret, and a pod that reads both"
run kubectl create namespace demo
run kubectl create configmap settings -n demo --from-literal=greeting='Good morning' --from-literal=motd='the tide is low'
run kubectl create secret generic password -n demo --from-literal=password=correct-horse
run kubectl apply -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: greeter, namespace: demo}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: coracle.dev/hello:v1
    args: [Coracle]
    env:
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
    - {name: SECRET_FILE, value: /secret/password}
    volumeMounts: [{name: secret, mountPath: /secret, readOnly: true}]
  volumes: [{name: secret, secret: {secretName: password}}]
YAML
run kubectl wait pod/greeter -n demo --for=jsonpath='{.status.phase}'=Succeeded --timeout=30s
run kubectl logs greeter -n demo

say "a pod that is steered to a node, and one that no node suits"
run kubectl label node node-2 disk=fast
for disk in fast floppy; do
  kubectl apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: wants-$disk, namespace: demo}
spec:
  nodeSelector: {disk: $disk}
  containers: [{name: main, image: coracle.dev/worker:v1, args: ["3600"]}]
YAML
done
run kubectl wait pod/wants-fast -n demo --for=condition=Ready --timeout=30s
run kubectl wait pod/wants-floppy -n demo --for=condition=PodScheduled=false --timeout=30s
run kubectl get pods -n demo -o wide
run kubectl get pod wants-floppy -n demo -o jsonpath='{.status.conditions[0].message}{"\n"}'

say "a running pod sees an edit of its configuration"
kubectl apply -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: watcher, namespace: demo}
spec:
  containers:
  - name: main
    image: coracle.dev/logger:v1
    args: [/config/motd]
    volumeMounts: [{name: config, mountPath: /config}]
  volumes: [{name: config, configMap: {name: settings}}]
YAML
run kubectl wait pod/watcher -n demo --for=condition=Ready --timeout=30s
until_logged watcher 'the tide is low'
run kubectl patch configmap settings -n demo -p '{"data":{"motd":"the tide is high"}}'
until_logged watcher 'the tide is high'
run kubectl logs watcher -n demo --timestamps

say "the namespace goes, and everything in it"
run kubectl delete namespace demo
run kubectl get pods --all-namespaces
say "that was Coracle; nothing is left behind"
