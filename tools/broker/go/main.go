// Command mochi runs mochi-mqtt on one loopback address, with users.json of the folder and the access rules of
// tools/broker/access.py. SIGHUP reads users.json anew and disconnects who is no longer in it.
package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/storage/bolt"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	bbolt "go.etcd.io/bbolt"
)

const (
	bridge      = "boardlet-bridge"
	boardWrites = "srtawl"
	boardReads  = "dcfi"
)

type access struct {
	mqtt.HookBase
	path  string
	mu    sync.RWMutex
	users map[string]string
}

func (a *access) ID() string { return "boardlet-access" }

func (a *access) Provides(b byte) bool {
	return bytes.Contains([]byte{mqtt.OnConnectAuthenticate, mqtt.OnACLCheck}, []byte{b})
}

func (a *access) load() error {
	raw, err := os.ReadFile(a.path)
	if err != nil {
		return err
	}
	users := map[string]string{}
	if err := json.Unmarshal(raw, &users); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users = users
	return nil
}

func (a *access) knows(user string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, known := a.users[user]
	return known
}

// A client id belongs to its user, because mochi throws off whoever has the same one: a board's is its user name, and
// the bridge may take any but that of another user. A will that its client may not publish refuses the connection: mochi
// would send it unchecked.
func (a *access) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	user, id := string(pk.Connect.Username), pk.Connect.ClientIdentifier
	if id != user && (user != bridge || a.knows(id)) {
		return false
	}
	if pk.Connect.WillFlag && !allowed(user, pk.Connect.WillTopic, true) {
		return false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	password, known := a.users[user]
	return known && subtle.ConstantTimeCompare([]byte(password), pk.Connect.Password) == 1
}

// A subscription is never refused as a whole: mochi asks again for every message that it would deliver.
func (a *access) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	return allowed(string(cl.Properties.Username), topic, write)
}

func allowed(user, topic string, write bool) bool {
	if user == bridge && !write && strings.HasPrefix(topic, "$SYS/") {
		return true
	}
	parts := strings.Split(topic, "/")
	if len(parts) != 4 || parts[0] != "b" || len(parts[3]) != 1 {
		return false
	}
	if user == bridge {
		if write {
			return strings.Contains(boardReads+"s", parts[3])
		}
		return strings.Contains(boardWrites+"d", parts[3])
	}
	if write {
		return parts[2] == user && strings.Contains(boardWrites, parts[3])
	}
	return parts[2] == user && strings.Contains(boardReads, parts[3])
}

func main() {
	listen := flag.String("listen", "", "address and port")
	folder := flag.String("folder", "", "folder with users.json and data/")
	packet := flag.Uint("packet", 0, "longest packet that a client may send, in bytes; 0 for any")
	flag.Parse()
	logger := slog.New(slog.NewTextHandler(os.Stdout, nil))
	capabilities := mqtt.NewDefaultServerCapabilities()
	capabilities.MaximumClientWritesPending = 200000
	capabilities.MaximumInflight = 65535
	capabilities.MaximumPacketSize = uint32(*packet)
	server := mqtt.New(&mqtt.Options{Logger: logger, Capabilities: capabilities, SysTopicResendInterval: 5})
	rules := &access{path: filepath.Join(*folder, "users.json")}
	check(rules.load())
	check(server.AddHook(rules, nil))
	store := &bolt.Options{Path: filepath.Join(*folder, "data", "mochi.db"), Options: &bbolt.Options{NoSync: true}}
	check(server.AddHook(new(bolt.Hook), store))
	check(server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: *listen})))
	check(server.Serve())

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	for s := range signals {
		if s != syscall.SIGHUP {
			break
		}
		if err := rules.load(); err != nil {
			logger.Error("users are as before", "why", err)
			continue
		}
		for _, client := range server.Clients.GetAll() {
			if !client.Net.Inline && !rules.knows(string(client.Properties.Username)) {
				client.Stop(packets.ErrNotAuthorized)
			}
		}
	}
	check(server.Close())
}

func check(err error) {
	if err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}
