"""Formulas as trees of Python's `ast`: reading them, putting one into another, simplifying."""

import ast
from collections.abc import Mapping


def names(tree: ast.AST) -> list[str]:
    """The names in a formula, in the order in which they are written."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return [node.id for node in sorted(found, key=lambda n: (n.lineno, n.col_offset))]


def inserted(tree: ast.expr, trees: Mapping[str, ast.expr]) -> ast.expr:
    """A formula with trees in the place of names; its own tree is used up."""
    return _Insertion(trees).visit(tree)


def variable(name: str) -> ast.Name:
    """A name that is read."""
    return ast.Name(name, ast.Load())


def simplified(tree: ast.expr) -> ast.expr:
    """A formula in which signs have moved outwards; its own tree is used up."""
    return _Simplification().visit(tree)


class _Insertion(ast.NodeTransformer):
    def __init__(self, trees):
        self.trees = trees

    def visit_Name(self, node):
        return self.trees.get(node.id, node)


class _Simplification(ast.NodeTransformer):
    """Signs move outwards and cancel, and so does what is added and subtracted again."""

    def visit_UnaryOp(self, node):
        match self.generic_visit(node):
            case ast.UnaryOp(ast.USub(), ast.UnaryOp(ast.USub(), x)):
                return x
        return node

    def visit_BinOp(self, node):
        match self.generic_visit(node):
            case ast.BinOp(ast.UnaryOp(ast.USub(), x), ast.Mult(), ast.UnaryOp(ast.USub(), y)):
                return ast.BinOp(x, ast.Mult(), y)
            case ast.BinOp(a, ast.Mult(), ast.UnaryOp(ast.USub(), x)):
                return ast.UnaryOp(ast.USub(), ast.BinOp(a, ast.Mult(), x))
            case ast.BinOp(ast.UnaryOp(ast.USub(), x), ast.Mult(), y):
                return ast.UnaryOp(ast.USub(), ast.BinOp(x, ast.Mult(), y))
            case ast.BinOp(a, ast.Add(), ast.UnaryOp(ast.USub(), x)):
                return ast.BinOp(a, ast.Sub(), x)
            case ast.BinOp(a, ast.Sub(), ast.UnaryOp(ast.USub(), x)):
                return ast.BinOp(a, ast.Add(), x)
            case ast.BinOp(ast.Name(a), ast.Add(), ast.BinOp(x, ast.Sub(), ast.Name(b))) if a == b:
                return x
            case ast.BinOp(a, ast.Add(), ast.BinOp(x, ast.Add() | ast.Sub() as sign, b)):
                return self.visit_BinOp(ast.BinOp(ast.BinOp(a, ast.Add(), x), sign, b))
        return node
