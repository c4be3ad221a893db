package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// To compile a package's tests takes longer than to run those of one mistake. So all
// mistakes that change the inside of a function are made in one copy of the module: the
// copy has each such function as it is, and once more with each mistake, under another
// name. A function of the old name calls the one whose number the environment says.

// The package that reads the number, which is in the copy alone.
const (
	numberPath   = "internal/mutate/number"
	numberEnv    = "HOLDFAST_MISTAKE"
	numberSource = `// Package number says which mistake is made.
package number

import (
	"os"
	"strconv"
)

// Of is the number of the mistake, or 0 for none.
var Of, _ = strconv.Atoi(os.Getenv("` + numberEnv + `"))
`
	numberImport = `; import number_ "github.com/holdfast-io/holdfast/` + numberPath + `"`
)

// A numbered mistake is one of those that are made in one copy. The first has number 1.
type numbered struct {
	mistake
	n int
}

// makeAll makes all mistakes that can be made in one copy, and returns the others.
func (w *workspace) makeAll(all []mistake) (together []numbered, others []mistake, err error) {
	byFile := make(map[string][]numbered)
	var files []string
	for i, m := range all {
		if byFile[m.file] == nil {
			files = append(files, m.file)
		}
		byFile[m.file] = append(byFile[m.file], numbered{m, i + 1})
	}
	if err := os.MkdirAll(filepath.Join(w.module, numberPath), 0o777); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(w.module, numberPath, "number.go"), []byte(numberSource), 0o666); err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		name := filepath.Join(w.module, filepath.FromSlash(file))
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, err
		}
		combined, made, left, err := combine(string(source), byFile[file])
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		together, others = append(together, made...), append(others, left...)
		if err := os.WriteFile(name, []byte(combined), 0o666); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(together, func(a, b numbered) int { return a.n - b.n })
	return together, others, nil
}

// combine returns a file with all mistakes that are inside of functions, and those that
// are not.
func combine(source string, all []numbered) (combined string, made []numbered, left []mistake, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
	if err != nil {
		return "", nil, nil, err
	}
	at := func(p token.Pos) int { return int(p - file.FileStart) }
	of := make(map[*ast.FuncDecl][]numbered)
	for _, m := range all {
		if _, err := m.apply(source); err != nil {
			return "", nil, nil, fmt.Errorf("%s: %w", m.name, err)
		}
		from := strings.Index(source, m.old)
		i := slices.IndexFunc(file.Decls, func(d ast.Decl) bool {
			f, ok := d.(*ast.FuncDecl)
			return ok && f.Body != nil && at(f.Body.Pos()) <= from && from+len(m.old) <= at(f.Body.End())
		})
		if i < 0 {
			left = append(left, m.mistake)
			continue
		}
		f := file.Decls[i].(*ast.FuncDecl)
		of[f] = append(of[f], m)
		made = append(made, m)
	}
	if len(made) == 0 {
		return source, nil, left, nil
	}
	var out strings.Builder
	name := at(file.Name.End())
	out.WriteString(source[:name] + numberImport)
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || of[f] == nil {
			continue
		}
		out.WriteString(source[name:at(f.Name.Pos())] + rightName(f))
		name = at(f.Name.End())
	}
	out.WriteString(source[name:])
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || of[f] == nil {
			continue
		}
		head, tail := source[at(f.Pos()):at(f.Name.Pos())], source[at(f.Name.End()):at(f.End())]
		for _, m := range of[f] {
			out.WriteString("\n" + head + wrongName(f, m.n) + strings.Replace(tail, m.old, m.new, 1) + "\n")
		}
		out.WriteString(dispatcher(source, f, of[f], at))
	}
	return out.String(), made, left, nil
}

func rightName(f *ast.FuncDecl) string        { return f.Name.Name + "_right" }
func wrongName(f *ast.FuncDecl, n int) string { return fmt.Sprintf("%s_wrong%d", f.Name.Name, n) }

// dispatcher returns a function with f's name, which calls f, or a copy with a mistake.
func dispatcher(source string, f *ast.FuncDecl, all []numbered, at func(token.Pos) int) string {
	text := func(n ast.Node) string { return source[at(n.Pos()):at(n.End())] }
	var params, args, types []string
	for _, field := range f.Type.Params.List {
		for range max(1, len(field.Names)) {
			p := fmt.Sprintf("p%d_", len(params))
			params = append(params, p+" "+text(field.Type))
			if _, ok := field.Type.(*ast.Ellipsis); ok {
				p += "..."
			}
			args = append(args, p)
		}
	}
	generic, instance := "", ""
	if f.Type.TypeParams != nil {
		generic = text(f.Type.TypeParams)
		for _, field := range f.Type.TypeParams.List {
			for _, name := range field.Names {
				types = append(types, name.Name)
			}
		}
		instance = "[" + strings.Join(types, ", ") + "]"
	}
	receiver, on := "", ""
	if f.Recv != nil {
		receiver, on = "(r_ "+text(f.Recv.List[0].Type)+") ", "r_."
	}
	results, back := "", ""
	if f.Type.Results != nil {
		results, back = " "+text(f.Type.Results), "return "
	}
	var b strings.Builder
	call := func(name string) string {
		return back + on + name + instance + "(" + strings.Join(args, ", ") + ")"
	}
	fmt.Fprintf(&b, "\nfunc %s%s%s(%s)%s {\n\tswitch number_.Of {\n", receiver, f.Name.Name, generic, strings.Join(params, ", "), results)
	for _, m := range all {
		fmt.Fprintf(&b, "\tcase %d:\n\t\t%s\n", m.n, call(wrongName(f, m.n)))
		if back == "" {
			b.WriteString("\t\treturn\n")
		}
	}
	fmt.Fprintf(&b, "\t}\n\t%s\n}\n", call(rightName(f)))
	return b.String()
}
